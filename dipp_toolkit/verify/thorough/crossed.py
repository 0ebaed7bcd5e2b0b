r"""The run's own times, crossed with noises that make every expectation over them exact.

The points $\pm \sqrt{D}\, e_i$ of D dimensions have a standard normal law's mean, covariance and (no) third moments, so
a gradient that is affine in the noises is integrated exactly by 2 D of them, where a product of nodes would need $2^D$.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...diffusion.times import Draw, Sampling
from ...errors import RunError


@dataclass(frozen=True)
class CrossedDraws:
    """Times that the run's sampling draws, each with noises that are not drawn.

    It is a `Sampling`, as an `Enumeration` is, and takes its place in a `QuadratureEngine`.

    Attributes:
        sampling: how the run draws times; it is asked for `count` of them, and its noises are left aside.
        count: times, stratified over their law as in a batch of as many.
        noises: of each row, the generator's noise and then the term's, `(rows, 2 dimension)`, time by time.
    """

    sampling: Sampling
    count: int
    noises: Float[Tensor, "rows both"]

    @classmethod
    def exact(cls, sampling: Sampling, count: int, dimension: int) -> CrossedDraws:
        """Each time with all of the points that are exact for a gradient affine in the noises."""
        size = 2 * dimension
        axes = size**0.5 * torch.eye(size, dtype=torch.float64)
        return cls(sampling, count, torch.cat([axes, -axes]).repeat(count, 1))

    @classmethod
    def spread(cls, sampling: Sampling, count: int, dimension: int) -> CrossedDraws:
        """Each time with one pair of opposite noises, the pairs spread evenly (Sobol's points): for any gradient."""
        places = torch.quasirandom.SobolEngine(2 * dimension, scramble=True, seed=0).draw(count, dtype=torch.float64)
        noises = torch.special.ndtri(places.clamp(1e-9, 1 - 1e-9))
        return cls(sampling, count, torch.stack([noises, -noises], 1).flatten(0, 1))

    @property
    def rows(self) -> int:
        """How many samples a batch has."""
        return len(self.noises)

    @property
    def dimension(self) -> int:
        """Of a sample."""
        return self.noises.shape[1] // 2

    @property
    def generator_noise(self) -> Float[Tensor, "rows dimension"]:
        """$z$ of each row."""
        return self.noises[:, : self.dimension]

    @property
    def weights(self) -> Float[Tensor, " rows"]:
        """All rows count alike."""
        return torch.ones(self.rows, dtype=torch.float64)

    def __call__(self, x0: Float[Tensor, "batch ..."], random: torch.Generator) -> Draw:
        """Times and noises of a batch of all rows.

        Raises:
            RunError: the batch has another size.
        """
        if len(x0) != self.rows:
            raise RunError(f"Crossed draws of {self.rows} rows need a batch of as many; got {len(x0)}.")
        t = self.sampling(x0.new_zeros(self.count, 1), random).t.repeat_interleave(self.rows // self.count)
        return Draw(t, self.noises[:, self.dimension :].reshape(x0.shape))
