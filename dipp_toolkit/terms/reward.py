r"""Explicit rewards: decode the sample, score it, and bring the gradient back to $x_0$.

The term's loss is $-r(\mathrm{decode}(x_0), c)$; the graph of the decoder and the reward lives only inside the call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import RunError
from ..roles import Reward
from .base import Sample, TermResult


@dataclass
class RewardTerm:
    """A differentiable reward as a term.

    Attributes:
        name: the reward's name, for messages.
        reward: scores images in [0, 1].
        decode: turns latents into images in [0, 1], differentiably.
        batch: samples decoded and scored at a time, 0 for all; the graph of each part is freed before the next.
    """

    name: str
    reward: Reward
    decode: Callable[[Tensor], Tensor]
    batch: int = 0

    def __call__(self, sample: Sample) -> TermResult:
        """Score the samples and differentiate.

        Raises:
            RunError: the reward returned something else than one finite, differentiable score for each image.
        """
        size = self.batch or len(sample.x0)
        parts = [
            self._score(sample.x0[start : start + size], sample.condition.prompts[start : start + size])
            for start in range(0, len(sample.x0), size)
        ]
        return TermResult(torch.cat([score for score, _ in parts]), -torch.cat([gradient for _, gradient in parts]))

    def _score(self, latents: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x0 = latents.detach().requires_grad_(True)
            scores = self.reward(self.decode(x0), prompts)
            self._check(scores, len(x0))
            (gradient,) = torch.autograd.grad(scores.sum(), x0, allow_unused=True)
        if gradient is None:
            raise RunError(
                f"The reward '{self.name}' does not depend on the images, so it has no gradient to train with."
            )
        return scores.detach(), gradient

    def _check(self, scores: object, batch: int) -> None:
        if not isinstance(scores, torch.Tensor) or scores.shape != (batch,):
            found = (
                f"a tensor of shape {tuple(scores.shape)}"
                if isinstance(scores, torch.Tensor)
                else f"a {type(scores).__name__}"
            )
            raise RunError(
                f"The reward '{self.name}' returned {found}; expected one score for each image, shape ({batch},)."
            )
        if not scores.requires_grad:
            raise RunError(
                f"The reward '{self.name}' is not differentiable: its scores do not depend on the images through "
                "torch operations. Compute the score from the images with torch, without .detach(), .numpy() or "
                "torch.no_grad()."
            )
        if not torch.isfinite(scores).all():
            raise RunError(f"The reward '{self.name}' returned a score that is not finite.")
