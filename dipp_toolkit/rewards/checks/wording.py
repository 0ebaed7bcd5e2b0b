"""What a reward makes of prompts."""

from __future__ import annotations

from ...errors import RunError
from .closeness import compare, gap, spread_of
from .probe import Probe, RewardRefusedError
from .verdicts import Verdict, failed, ok, warning

HARD = {
    "an empty prompt": "",
    "emoji": "🦊🍎 on a 👩‍🚀",
    "Chinese and Arabic": "一只红色的猫 قطة حمراء",
    "10,000 characters": "a red cat " * 1000,
    "line breaks": "a red cat\nand\r\n\ta dog",
    "quotes and braces": "a sign that says \"{0}\" <b>'\\n'</b>",
}


def check_prompts(probe: Probe) -> Verdict:
    """Prompts that people really type, or forget to."""
    images, refused = probe.pictures(), None
    for name, prompt in HARD.items():
        prompts = probe.prompts()
        prompts[1] = prompt
        try:
            probe.score(images, prompts)
        except RewardRefusedError as error:
            refused = refused or warning(f"It refuses {name}: {error}", "Fine, if your prompts are never like that.")
        except RunError as error:
            return failed(f"With {name}: {error}", "Cut prompts to what the text encoder reads, and expect any text.")
    return refused or ok(f"Prompts of all kinds are read: {', '.join(HARD)}.")


def check_prompt_matters(probe: Probe) -> Verdict:
    """Whether the prompt changes anything; not doing so is no fault."""
    images, prompts = probe.pictures(), probe.prompts()
    first, second = probe.score(images, prompts), probe.score(images, prompts[1:] + prompts[:1])
    if compare(first, second) == "same":
        return ok("The prompt does not matter: it judges images by themselves.")
    return ok(
        f"Another prompt moves scores by up to {gap(first, second):.3g}; "
        f"another picture by about {spread_of(first):.3g}."
    )
