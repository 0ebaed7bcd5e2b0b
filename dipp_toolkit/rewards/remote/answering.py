"""One request answered by a reward that lives here; what a worker process and a server have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...errors import DippError, RequestError
from ...protocols import ReportingReward, Reward
from ...utils.precision import full_precision
from ..scores import answer_of, as_scores, failure
from .wire import Request, encode_error, encode_scores


def answer(
    name: str,
    reward: Reward,
    request: Request,
    device: torch.device | str = "cpu",
    keep: Callable[[Tensor], None] | None = None,
) -> bytes:
    """Score the images and encode the scores, with gradients where they are wanted and there are any.

    Args:
        name: the reward's, for messages.
        reward: gives one score an image, each depending on its own image alone.
        request: checked.
        device: where the reward wants the images.
        keep: puts gradients where the asker sees them; without it they are part of the reply.

    Returns:
        An encoded reply. Whatever the reward raises becomes one too: an error sentence.
    """
    try:
        scores, gradients = score(name, reward, request, device)
    except DippError as error:
        return encode_error(str(error), isinstance(error, RequestError))
    except Exception as error:  # noqa: BLE001 -- somebody's reward: whatever it raises, the asker gets a sentence
        return encode_error(str(failure(name, error)))
    report = reward.report() if isinstance(reward, ReportingReward) else {}
    if keep is None or gradients is None:
        return encode_scores(scores, gradients, report=report)
    keep(gradients)
    return encode_scores(scores, None, shared=True, report=report)


def score(
    name: str, reward: Reward, request: Request, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor | None]:
    """Scores `(batch,)`, and their gradients like the images; None where none are wanted or there are none.

    Whether the numbers are finite is for the asker to say: a run skips a step for those that are not, wherever the
    reward lives.

    Raises:
        RunError: the reward returned something else than one score for each image.
        Exception: whatever the reward raises.
    """
    images = request.images.to(device)
    if not request.gradients or reward.differentiable is False:
        return _plain(name, reward, images, request.prompts), None
    try:
        with torch.enable_grad():
            leaf = images.detach().requires_grad_(True)
            scores = as_scores(name, answer_of(reward, leaf, request.prompts), len(leaf), finite=False)
    except Exception:
        if reward.differentiable:
            raise
        # It may be one that works through NumPy, which refuses tensors with a graph. The next line shows it.
        return _plain(name, reward, images, request.prompts), None
    if not scores.requires_grad:
        return scores, None
    with full_precision(images.device):
        (gradients,) = torch.autograd.grad(scores.sum(), leaf, allow_unused=True)
    return scores.detach(), gradients


@torch.no_grad()
def _plain(name: str, reward: Reward, images: Tensor, prompts: Sequence[str]) -> Tensor:
    return as_scores(name, answer_of(reward, images, prompts), len(images), finite=False)
