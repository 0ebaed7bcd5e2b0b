r"""Explicit rewards: decode the sample, score it, and bring the gradient back to $x_0$.

The term's loss is $-r(\mathrm{decode}(x_0), c)$; the graph of the decoder and the reward lives only inside the call.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import RunError
from ..roles import Reference, Reward
from .base import Sample, TermResult


@dataclass
class RewardTerm:
    """A differentiable reward as a term.

    Attributes:
        name: the reward's name, for messages.
        reward: scores images in [0, 1].
        reference: its decoder turns latents into images.
    """

    name: str
    reward: Reward
    reference: Reference

    def __call__(self, sample: Sample) -> TermResult:
        """Score the samples and differentiate.

        Raises:
            RunError: the reward returned something else than one finite, differentiable score for each image.
        """
        with torch.enable_grad():
            x0 = sample.x0.detach().requires_grad_(True)
            scores = self.reward(self.reference.decode(x0), sample.condition.prompts)
            self._check(scores, len(sample.x0))
            (gradient,) = torch.autograd.grad(scores.sum(), x0, allow_unused=True)
        if gradient is None:
            raise RunError(
                f"The reward '{self.name}' does not depend on the images, so it has no gradient to train with."
            )
        return TermResult(scores.detach(), -gradient)

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
