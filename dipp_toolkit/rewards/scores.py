"""What every reward is given and must give back, checked in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import BadNumbers, RequestError, RunError


def check_inputs(name: str, images: Tensor, prompts: Sequence[str] | None) -> None:
    """Refuse what is no batch of images with one prompt each.

    Args:
        name: the reward's, for the message.
        images: expected `(batch, 3, height, width)`, floating point, in [0, 1].
        prompts: one for each image; None where the reward reads none.

    Raises:
        RequestError: with what was found and what was expected.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise RequestError(f"'{name}' scores images of shape (batch, 3, height, width), not {tuple(images.shape)}.")
    if not images.is_floating_point():
        raise RequestError(f"'{name}' scores floating-point images in [0, 1], not {images.dtype}.")
    if prompts is not None and len(prompts) != len(images):
        raise RequestError(f"'{name}' needs one prompt for each image: {len(images)} images came with {len(prompts)}.")


def as_scores(
    name: str, found: Any, batch: int, device: torch.device | str | None = None, *, finite: bool = True
) -> Tensor:
    """A reward's answer as scores, `(batch,)`, float32 or wider; its graph, where it has one, is kept.

    Args:
        name: the reward's, for the message.
        found: a tensor, an array, or a sequence of numbers.
        batch: number of images that were scored.
        device: where the scores go; where they are, if none is given.
        finite: look whether every score is finite, which waits for an accelerator.

    Raises:
        RunError: the answer is no list of one number for each image.
        BadNumbers: a score is not finite, and that was looked at.
    """
    try:
        scores = found if isinstance(found, Tensor) else torch.as_tensor(found)
        if scores.is_complex() or scores.layout != torch.strided or scores.is_meta:
            raise TypeError
        scores = scores.to(device=device, dtype=torch.promote_types(scores.dtype, torch.float32))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        kind = f"{found.dtype} tensor" if isinstance(found, Tensor) else type(found).__name__
        raise RunError(
            f"The reward '{name}' returned a {kind}; expected one score for each image, shape ({batch},)."
        ) from None
    if scores.shape != (batch,):
        raise RunError(
            f"The reward '{name}' returned a tensor of shape {tuple(scores.shape)}; expected one score for each image, "
            f"shape ({batch},)."
        )
    wrong = int((~torch.isfinite(scores.detach())).sum()) if finite else 0
    if wrong:
        raise BadNumbers(f"The reward '{name}' returned a score that is not finite for {wrong} of {batch} images.")
    return scores
