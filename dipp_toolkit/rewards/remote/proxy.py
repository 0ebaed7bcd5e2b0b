"""A reward that lives elsewhere, as an ordinary one: scores come over a wire, and with them the images' gradients.

A score depends on its own image alone, so that one gradient an image says everything: the backward pass multiplies it
by what reaches the image's score from above. The far side's graph never leaves the far side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...errors import RequestError, RunError
from ...utils.images import Images
from ..scores import as_scores, check_inputs


@runtime_checkable
class Scorer(Protocol):
    """A way to somewhere else: a worker process, or servers.

    Attributes:
        differentiable: what the far side says of its reward; None where it does not know.
    """

    @property
    def differentiable(self) -> bool | None:
        """Whether gradients can be had."""

    def score(self, images: Tensor, prompts: Sequence[str], gradients: bool) -> tuple[Tensor, Tensor | None]:
        """Scores `(batch,)` of images `(batch, 3, height, width)`, float32 on the CPU like all that comes back.

        The second value is the gradient of each score with respect to its image; None where none was wanted, or where
        the scores do not depend on the images in a way that has one.

        Raises:
            RunError: no scores can be had, and why.
        """

    def identity(self) -> str:
        """What the far side says of the code and weights of its reward, as a digest.

        Raises:
            RunError: it does not answer.
        """

    def close(self) -> None:
        """Let go of processes and connections."""


class _Scored(torch.autograd.Function):
    """Known scores whose gradients with respect to the images are known too."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, scores: Tensor, gradients: Tensor) -> Tensor:
        ctx.save_for_backward(gradients)
        return scores.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return gradients * grad_output.to(gradients.dtype)[:, None, None, None], None, None


class ElsewhereReward:
    """A `Reward` of a `Scorer`.

    Args:
        name: as typed, for messages.
        scorer: the way to it.
        batch: images sent at a time, 0 for all.
    """

    def __init__(self, name: str, scorer: Scorer, batch: int = 0):
        self.name = name
        self.scorer = scorer
        self.batch = batch
        self._differentiable = scorer.differentiable

    @property
    def differentiable(self) -> bool | None:
        """What the far side says; where it does not know, what the first scores have shown."""
        return self._differentiable

    def to(self, device: torch.device | str) -> ElsewhereReward:
        """Move the reward, where the far side is ours to move; returns itself."""
        move = getattr(self.scorer, "to", None)
        if move is not None:
            move(str(device))
        return self

    def identity(self) -> str:
        """What the reward is, as a digest: it changes when the code or the weights of the far side do.

        Raises:
            RunError: the far side does not say.
        """
        return self.scorer.identity()

    def close(self) -> None:
        """Let go of processes and connections; the reward is of no use afterwards."""
        self.scorer.close()

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores, on the images' device.

        Args:
            images: in [0, 1]; where they require a gradient and the reward has one, both are asked for at once.
            prompts: one an image.

        Raises:
            RequestError: the images or prompts are no batch.
            RunError: the far side failed or answered nonsense.
        """
        check_inputs(self.name, images, prompts)
        wanted = images.requires_grad and torch.is_grad_enabled() and self._differentiable is not False
        sent = images.detach().to("cpu", torch.float32)
        size = self.batch or len(sent)
        parts = [
            self._score(sent[start : start + size], prompts[start : start + size], wanted)
            for start in range(0, len(sent), size)
        ]
        scores = torch.cat([part for part, _ in parts]).to(images.device)
        gradients = [gradient for _, gradient in parts if gradient is not None]
        if not wanted or not gradients:
            return scores
        gradient = torch.cat(gradients).to(images.device, images.dtype)
        return _Scored.apply(images, scores, gradient)

    def _score(self, images: Tensor, prompts: Sequence[str], wanted: bool) -> tuple[Tensor, Tensor | None]:
        scores, gradient = self.scorer.score(images, list(prompts), wanted)
        scores = as_scores(self.name, scores, len(images), finite=False)  # as a reward that lives here
        if not wanted:
            return scores, None
        if self._differentiable is None:
            self._differentiable = gradient is not None
        if (gradient is not None) != self._differentiable:
            found, expected = ("no", "one") if gradient is None else ("a", "none")
            raise RunError(
                f"The reward '{self.name}' returned {found} gradient; expected {expected}, as it said at the start."
            )
        return scores, gradient


def check_numbers(name: str, positive: Mapping[str, Any], counts: Mapping[str, Any] | None = None) -> None:
    """Refuse options of a reward that are no numbers, or out of range.

    Args:
        name: the reward's, for the message.
        positive: finite numbers above 0, by name.
        counts: whole numbers from 0, by name.

    Raises:
        RequestError: with the option's name.
    """
    for option, value in positive.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise RequestError(f"The option {option} of the reward '{name}' is {value!r}; expected a positive number.")
    for option, value in (counts or {}).items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise RequestError(
                f"The option {option} of the reward '{name}' is {value!r}; expected a whole number from 0."
            )
