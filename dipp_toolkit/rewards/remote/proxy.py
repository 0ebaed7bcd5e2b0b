"""A reward in another process or on another machine as an ordinary one: scores come back with the images' gradients.

A score depends on its own image alone, so that one gradient an image says everything: the backward pass multiplies it
by what reaches the image's score from above. The graph never leaves the process that the reward is in.
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
from ...protocols import moved
from ...utils.images import Images
from ..scores import as_scores, check_inputs


@runtime_checkable
class Scorer(Protocol):
    """The connection to a worker process or to servers that score images.

    Attributes:
        differentiable: what the worker or server says of its reward; None where it does not know.
    """

    @property
    def differentiable(self) -> bool | None:
        """Whether the scores have gradients."""

    def score(self, images: Tensor, prompts: Sequence[str], gradients: bool) -> tuple[Tensor, Tensor | None]:
        """Scores `(batch,)` of images `(batch, 3, height, width)`, float32 on the CPU like all that comes back.

        The second value is the gradient of each score with respect to its image; None where none was wanted, or where
        the scores do not depend on the images in a way that has one.

        Raises:
            RunError: scores are unavailable; the message says why.
        """

    def identity(self) -> str:
        """A digest of the reward's code and weights.

        Raises:
            RunError: there was no answer.
        """

    def close(self) -> None:
        """End processes and close connections."""


@runtime_checkable
class ReportingScorer(Scorer, Protocol):
    """A connection over which a reward also says more of images than their scores.

    Attributes:
        reported: of the images of the last call, one number an image, by name.
    """

    @property
    def reported(self) -> Mapping[str, Tensor]: ...


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


class ProxyReward:
    """A `Reward` of a `Scorer`.

    Args:
        name: as typed, for messages.
        scorer: the way to it.
        batch: images sent at a time, 0 for all.
    """

    range = "that of the reward that is served"
    licence = "that of the reward that is served"
    source = "`dipp reward serve`; docs/operations/rewards-elsewhere.md"
    blind_to = "what the reward that is served is blind to"
    gradient = "where the reward that is served has one; it is sent back with the scores"
    asks = "the server"

    def __init__(self, name: str, scorer: Scorer, batch: int = 0):
        self.name = name
        self.scorer = scorer
        self.batch = batch
        self._differentiable = scorer.differentiable
        self._reports: list[Mapping[str, Tensor]] = []

    @property
    def differentiable(self) -> bool | None:
        """What the other side says; where it does not know, what the first scores showed."""
        return self._differentiable

    def to(self, device: torch.device | str) -> ProxyReward:
        """Move the reward where its process is ours; returns itself."""
        moved(self.scorer, str(device))
        return self

    def identity(self) -> str:
        """A digest of the reward: it changes when its code or its weights do.

        Raises:
            RunError: the other side does not send one.
        """
        return self.scorer.identity()

    def report(self) -> dict[str, Tensor]:
        """What the other side said of the images of the last call beside their scores."""
        names = dict.fromkeys(name for report in self._reports for name in report)
        return {name: torch.cat([report[name] for report in self._reports if name in report]) for name in names}

    def close(self) -> None:
        """End processes and close connections; the reward cannot be used afterwards."""
        self.scorer.close()

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores, on the images' device.

        Args:
            images: in [0, 1]; where they require a gradient and the reward has one, both are requested at once.
            prompts: one an image.

        Raises:
            RequestError: the images and prompts are not a batch.
            RunError: the other side failed, or its response is invalid.
        """
        check_inputs(self.name, images, prompts)
        wants_gradients = images.requires_grad and torch.is_grad_enabled() and self._differentiable is not False
        sent = images.detach().to("cpu", torch.float32)
        size = self.batch or len(sent)
        self._reports = []
        parts = [
            self._score(sent[start : start + size], prompts[start : start + size], wants_gradients)
            for start in range(0, len(sent), size)
        ]
        scores = torch.cat([part for part, _ in parts]).to(images.device)
        gradients = [gradient for _, gradient in parts if gradient is not None]
        if not wants_gradients or not gradients:
            return scores
        gradient = torch.cat(gradients).to(images.device, images.dtype)
        return _Scored.apply(images, scores, gradient)

    def _score(self, images: Tensor, prompts: Sequence[str], wants_gradients: bool) -> tuple[Tensor, Tensor | None]:
        scores, gradient = self.scorer.score(images, list(prompts), wants_gradients)
        if isinstance(self.scorer, ReportingScorer):
            self._reports.append(self.scorer.reported)
        scores = as_scores(self.name, scores, len(images), finite=False)  # as a reward that lives here
        if not wants_gradients:
            return scores, None
        if self._differentiable is None:
            self._differentiable = gradient is not None
        if (gradient is not None) != self._differentiable:
            got, expected = ("no", "one") if gradient is None else ("a", "none")
            raise RunError(
                f"The reward '{self.name}' returned {got} gradient; expected {expected}, as it said at the start."
            )
        return scores, gradient


def check_numbers(name: str, positive: Mapping[str, Any], counts: Mapping[str, Any] | None = None) -> None:
    """Refuse options of a reward that are not numbers or are out of range.

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
                f"The option {option} of the reward '{name}' is {value!r}; expected a whole number, 0 or more."
            )
