"""How every reward is called for scores: float32 images outside autocast, checked inputs, checked scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import BadNumbers, DippError, RequestError, RunError
from ..protocols import Reward
from ..utils.exception_text import raised
from ..utils.images import Images
from ..utils.precision import at_least_float32, full_precision


def check_inputs(name: str, images: Tensor, prompts: Sequence[str] | None) -> None:
    """Refuse what is not a batch of images with one prompt each.

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
    name: str, answer: Any, batch: int, device: torch.device | str | None = None, *, finite: bool = True
) -> Tensor:
    """A reward's answer as scores, `(batch,)`, float32 or wider; its graph, where it has one, is kept.

    Args:
        name: the reward's, for the message.
        answer: a tensor, an array, or a sequence of numbers.
        batch: number of images that were scored.
        device: where the scores go; where they are, if none is given.
        finite: check that every score is finite, which waits for an accelerator.

    Raises:
        RunError: the answer is not one number for each image.
        BadNumbers: a score is not finite, and that was checked.
    """
    try:
        scores = answer if isinstance(answer, Tensor) else torch.as_tensor(answer)
        if scores.is_complex() or scores.layout != torch.strided or scores.is_meta:
            raise TypeError
        scores = scores.to(device=device, dtype=torch.promote_types(scores.dtype, torch.float32))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        kind = f"{answer.dtype} tensor" if isinstance(answer, Tensor) else type(answer).__name__
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


def failure(name: str, error: BaseException, *, place: bool = True) -> RunError:
    """The error that says what a reward's own code raised.

    Args:
        name: the reward's.
        error: what it raised.
        place: as for `raised`.
    """
    return RunError(f"The reward '{name}' failed with {raised(error, place=place)}.")


def answer_of(reward: Reward, images: Images, prompts: Sequence[str]) -> Any:
    """What a reward returns for images in [0, 1], unchecked; half precision reaches it as float32.

    Scores of one prompt's images often differ by a hundredth, and bfloat16 has 256 numbers between 1 and 2: a reward
    computes in the dtypes that its author gave it, not in those that a run narrows its own networks to.

    Args:
        reward: anybody's; whatever it raises is raised.
        images: to be scored.
        prompts: one an image.
    """
    with full_precision(images.device):
        return reward(at_least_float32(images), list(prompts))


def ask(
    name: str,
    reward: Reward,
    images: Images,
    prompts: Sequence[str],
    *,
    finite: bool = True,
) -> Float[Tensor, " batch"]:
    """A reward's scores, float32 or wider, on the images' device; their graph, where there is one, is kept.

    Args:
        name: the reward's, for messages.
        reward: anybody's.
        images: as for `answer_of`.
        prompts: one an image.
        finite: check that every score is finite, which waits for an accelerator.

    Raises:
        RunError: the reward raised, or did not return one number for each image.
        BadNumbers: a score is not finite, and that was checked.
    """
    try:
        answer = answer_of(reward, images, prompts)
    except DippError:
        raise
    except Exception as error:  # a user's own code may raise anything
        raise failure(name, error) from error
    return as_scores(name, answer, len(images), images.device, finite=finite)
