"""What `dipp prompts encode` does: encode prompts into the cache that training reads."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path
from typing import Any

from dipp_toolkit.errors import RequestError

from ..terminal.output import print_line


def encode_to_cache(
    reference: str, prompts: str, cache: Path | None, precision: str, chunk: int, cut: bool, device: str
) -> dict[str, Any]:
    """Encode what is missing; the numbers.

    Raises:
        RequestError: a name is unknown, a file cannot be used, or a prompt is too long and may not be cut.
    """
    from dipp_toolkit.training.setup.name_checks import check_pipeline, check_prompts

    check_pipeline(reference, "reference")
    check_prompts(prompts)
    from dipp_toolkit.models.loading import load_prompt_encoder
    from dipp_toolkit.prompts.cache import PromptCache, count_distinct, default_cache, encoder_folder
    from dipp_toolkit.prompts.loading import load_prompts
    from dipp_toolkit.protocols import texts
    from dipp_toolkit.utils.device import choose_device
    from dipp_toolkit.utils.paths import user_path
    from dipp_toolkit.utils.precision import DTYPES

    if precision not in DTYPES:
        raise RequestError(f"--precision {precision} is unknown; expected one of {', '.join(DTYPES)}.")
    if chunk < 1:
        raise RequestError(f"--chunk is {chunk}; expected at least 1.")
    prompt_texts = texts(load_prompts(prompts))
    encoder = load_prompt_encoder(reference, DTYPES[precision]).to(choose_device(device))
    encoder.set_long_prompts("cut" if cut else "refuse", "--cut")
    store = PromptCache(encoder_folder(user_path(cache or default_cache()), encoder))

    def progress(seen: int, encoded: int) -> None:
        print_line(f"{seen} of {len(prompt_texts) + 1} prompts done, {encoded} of them encoded now", file=sys.stderr)

    encoded = store.encode(encoder, chain(prompt_texts, [""]), chunk, progress)
    different = count_distinct(chain(prompt_texts, [""]))
    return {"folder": str(store.folder), "prompts": different, "encoded": encoded, "reference": reference}
