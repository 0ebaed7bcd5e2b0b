"""Whether a reward answers at all: batches, sizes, unusual pictures, prompts of all kinds."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import RunError
from .probe import BATCH, Probe, RewardRefusedError
from .verdicts import Verdict, compare, failed, gap, ok, spread_of, warning

BATCHES = (1, 2, 5)
SMALL = 8
HARD = {
    "an empty prompt": "",
    "emoji": "🦊🍎 on a 👩‍🚀",
    "Chinese and Arabic": "一只红色的猫 قطة حمراء",
    "10,000 characters": "a red cat " * 1000,
    "line breaks": "a red cat\nand\r\n\ta dog",
    "quotes and braces": "a sign that says \"{0}\" <b>'\\n'</b>",
}


def check_scores(probe: Probe) -> Verdict:
    """One finite score for each of an ordinary batch's pictures."""
    probe.move(probe.device)
    scores = probe.score(probe.pictures(), probe.prompts())
    low, high = scores.min().item(), scores.max().item()
    if low == high:
        return warning(
            f"{BATCH} different pictures all score {low:.4g}.", "A reward that is constant has nothing to teach."
        )
    return ok(f"{BATCH} pictures score from {low:.4g} to {high:.4g}.")


def check_batches(probe: Probe) -> Verdict:
    """Batches of one, of two, and of a number that no kernel likes."""
    for count in BATCHES:
        try:
            probe.score(probe.pictures(count, key=count), probe.prompts(count))
        except RunError as error:
            return failed(
                f"With a batch of {count}: {error}", "Return one score for each image, also where there is only one."
            )
    return ok(f"Batches of {', '.join(map(str, BATCHES))} are scored.")


def check_sizes(probe: Probe) -> Verdict:
    """Wide pictures, odd sizes, and very small ones, the last a matter for a warning."""
    side = probe.size
    for height, width in ((side, side), (side * 3 // 2, side), (side + 1, side * 3 // 2 + 1)):
        try:
            probe.score(probe.pictures(height=height, width=width), probe.prompts())
        except RunError as error:
            return failed(
                f"With pictures of {height}x{width}: {error}", "Resize inside the reward to the size that it needs."
            )
    try:
        probe.score(probe.pictures(height=SMALL, width=SMALL), probe.prompts())
    except RunError as error:
        return warning(f"With pictures of {SMALL}x{SMALL}: {error}", "This matters only if you score thumbnails.")
    return ok(f"Pictures of {side}x{side}, other shapes, odd sizes and {SMALL}x{SMALL} are scored.")


def unusual(probe: Probe) -> dict[str, Float[Tensor, "batch 3 height width"]]:
    """Batches of pictures that models are not trained on, by name."""
    plain = torch.ones(BATCH, 3, probe.size, probe.size, device=probe.device)
    noise = torch.rand(plain.shape, generator=probe.random(7)).to(probe.device)
    grey = probe.pictures(key=8).mean(1, keepdim=True).expand_as(plain).contiguous()
    return {"black": 0 * plain, "white": plain, "plain grey": plain / 2, "grey-scale": grey, "noisy": noise}


def check_contents(probe: Probe) -> Verdict:
    """Plain, colourless and noisy pictures."""
    scores = []
    for name, images in unusual(probe).items():
        try:
            scores.append(f"{name} {probe.score(images, probe.prompts()).mean().item():.4g}")
        except RunError as error:
            return failed(f"With {name} pictures: {error}", "Put a small constant under roots, logarithms, divisors.")
    return ok(f"All are scored: {', '.join(scores)}.")


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
    """Whether the prompt changes the score; it is not a fault where it does not."""
    images, prompts = probe.pictures(), probe.prompts()
    first, second = probe.score(images, prompts), probe.score(images, prompts[1:] + prompts[:1])
    if compare(first, second) == "same":
        return ok("The prompt does not matter: it judges images by themselves.")
    return ok(
        f"Another prompt moves scores by up to {gap(first, second):.3g}; "
        f"another picture by about {spread_of(first):.3g}."
    )
