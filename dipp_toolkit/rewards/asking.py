"""How every reward is asked for scores, whoever asks: float32 images, outside the run's autocast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..errors import DippError, RunError
from ..protocols import Reward
from ..utils.exception_text import raised
from ..utils.images import Images
from ..utils.precision import at_least_float32, full_precision
from .scores import as_scores


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
        finite: look whether every score is finite, which waits for an accelerator.

    Raises:
        RunError: the reward raised, or returned something else than one number for each image.
        BadNumbers: a score is not finite, and that was looked at.
    """
    try:
        found = answer_of(reward, images, prompts)
    except DippError:
        raise
    except Exception as error:  # a user's own code may raise anything
        raise RunError(f"The reward '{name}' failed with {raised(error)}.") from error
    return as_scores(name, found, len(images), images.device, finite=finite)
