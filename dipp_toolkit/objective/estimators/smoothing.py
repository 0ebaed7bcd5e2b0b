r"""Antithetic Gaussian smoothing in a low-dimensional space around $x_0$."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...distributed.shared_draws import normal
from ...utils.precision import full_precision
from ..base import Sample
from .base import Estimate, Score


@cache
def lowest_cosines(size: int, count: int) -> Float[Tensor, "size count"]:
    """The first `count` vectors of the orthonormal cosine basis (DCT-II) of `size` numbers, as columns."""
    places, waves = torch.arange(size, dtype=torch.float64), torch.arange(count, dtype=torch.float64)
    basis = torch.cos(math.pi * (places[:, None] + 0.5) * waves / size) * math.sqrt(2 / size)
    basis[:, 0] /= math.sqrt(2)
    return basis


def smooth_directions(noise: Float[Tensor, "*batch rows columns"], height: int, width: int) -> Tensor:
    """Coefficients of the lowest cosines as fields, `(*batch, height, width)`: an isometry onto a subspace."""
    across = lowest_cosines(width, noise.shape[-1]).to(noise)
    down = lowest_cosines(height, noise.shape[-2]).to(noise)
    return down @ noise @ across.T


@dataclass
class Smoothing:
    r"""Estimates $\nabla r_\rho$ of the smoothed score $r_\rho(x) = E[r(x + \rho U z)]$, $z \sim N(0, I)$.

    The columns of $U$ are the lowest `side` x `side` cosines of each latent channel, orthonormal, so the estimate

    $$\frac1n \sum_{k=1}^n \frac{r(x_0 + \rho U z_k) - r(x_0 - \rho U z_k)}{2 \rho}\, U z_k$$

    is, for a linear score, its gradient projected on that subspace, in the mean. Its variance grows with the
    dimension, which is why that is low. Antithetic pairs take out every even part of the score (Nesterov and Spokoiny,
    "Random gradient-free minimization of convex functions", 2017; Salimans et al., 2017, arXiv 1703.03864). It costs $2
    n + 1$ scores a sample and learns nothing.

    Attributes:
        pairs: $n$.
        radius: $\rho$, in units of the batch's root-mean-square latent.
        side: waves each way; all of them where the latents are smaller.
    """

    pairs: int = 8
    radius: float = 0.1
    side: int = 8

    def estimate(self, sample: Sample, score: Score) -> Estimate:
        """As `GradientEstimator` says; latents are `(batch, channels, height, width)`."""
        x0 = sample.x0
        batch, channels, height, width = x0.shape
        radius = self.radius * x0.square().mean().sqrt().clamp_min(1e-6)
        shape = (self.pairs, batch, channels, min(self.side, height), min(self.side, width))
        noise = normal(shape, sample.random, x0.dtype, rows=1)
        with full_precision(x0.device):
            directions = smooth_directions(noise, height, width)
        gradient = torch.zeros_like(x0)
        for direction in directions:
            above = score(x0 + radius * direction, sample.condition.prompts)
            below = score(x0 - radius * direction, sample.condition.prompts)
            slope = ((above - below).to(x0) / (2 * radius * self.pairs)).reshape(-1, 1, 1, 1)
            gradient += slope * direction
        return Estimate(score(x0, sample.condition.prompts), gradient)

    def warnings(self) -> list[str]:
        """None: there is nothing that it could fail to learn."""
        return []

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is nothing to take over."""
