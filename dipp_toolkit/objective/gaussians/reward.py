"""Rewards whose mean over a Gaussian is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ...utils.images import Images
from .law import Gaussian


@dataclass(frozen=True)
class QuadraticReward:
    r"""$r(x) = a^T x - \frac12 (x - m)^T Q (x - m)$ of an image's three numbers; linear where Q is zero.

    Attributes:
        slope: a.
        curvature: Q, symmetric and positive semi-definite.
        centre: m.
        differentiable: always.
    """

    slope: Float[Tensor, " dimension"]
    curvature: Float[Tensor, "dimension dimension"]
    centre: Float[Tensor, " dimension"]
    differentiable: bool = True

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        x = images.flatten(1)
        offset = x - self.centre
        return x @ self.slope - (offset @ self.curvature * offset).sum(1) / 2

    def mean(self, law: Gaussian) -> Float[Tensor, ""]:
        r"""$E\, r(x) = a^T b - \frac12 (b - m)^T Q (b - m) - \frac12 \mathrm{tr}(Q S)$ for $x \sim N(b, S)$."""
        offset = law.mean - self.centre
        spread = (self.curvature * law.covariance).sum()
        return law.mean @ self.slope - (offset @ self.curvature @ offset + spread) / 2
