r"""Expectations without chance: finite sums that are exact for what a Gaussian world needs.

There the gradient on a sample is affine in $z$ and $\epsilon$, so the gradient in $(A, b)$ has no moments beyond the
second. Sigma points have the first two moments of $z$, pairs $\pm \epsilon$ have no correlation with $z$, and a sum
over a grid of times defines the integral over t. With them training is deterministic, and an optimum is reached to as
many digits as wanted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..engine import Engine
from ..errors import RunError
from ..terms.times import Draw


def midpoints(low: float, high: float, count: int) -> Float[Tensor, " times"]:
    """The midpoints of `count` equal cells of `[low, high]`, float64."""
    return low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5) / count


@dataclass(frozen=True)
class TimeGrid:
    """A `Sampling` that enumerates: each time of the grid, with a noise and its opposite, over and over.

    Attributes:
        times: the grid, in [0, 1], each of equal weight.
    """

    times: Float[Tensor, " times"]

    def __call__(self, x0: Float[Tensor, "batch ..."], random: torch.Generator) -> Draw:
        """Times and noises for a batch whose size is a multiple of twice the number of times.

        Raises:
            RunError: it is none.
        """
        repeats, rest = divmod(len(x0), 2 * len(self.times))
        if rest:
            raise RunError(
                f"A grid of {len(self.times)} times needs a batch that is a multiple of {2 * len(self.times)}; "
                f"got {len(x0)}."
            )
        half = torch.randn((len(x0) // 2, *x0.shape[1:]), generator=random, device=random.device, dtype=x0.dtype)
        noise = torch.stack([half, -half], 1).flatten(0, 1)
        return Draw(self.times.to(x0.device, x0.dtype).repeat_interleave(2).repeat(repeats), noise)


def sigma_points(dimension: int) -> Float[Tensor, "twice_dimension dimension"]:
    r"""The points $\pm \sqrt{d}\, e_i$, float64: mean 0 and covariance I, exactly."""
    axes = dimension**0.5 * torch.eye(dimension, dtype=torch.float64)
    return torch.cat([axes, -axes])


class QuadratureEngine(Engine):
    """The engine, its generator's noise replaced by sigma points, each as often as the others."""

    def draw_noise(self, batch: int) -> Float[Tensor, "batch ..."]:
        """Each sigma point in a row of its own, as long as a multiple of a `TimeGrid`'s period.

        Raises:
            RunError: the batch cannot be dealt out evenly.
        """
        shape = self.generator.latent_shape
        points = sigma_points(torch.Size(shape).numel())
        if batch % len(points):
            raise RunError(f"{len(points)} sigma points need batches of a multiple of {len(points)}; got {batch}.")
        return points.repeat_interleave(batch // len(points), 0).reshape(batch, *shape).to(self.random.device)
