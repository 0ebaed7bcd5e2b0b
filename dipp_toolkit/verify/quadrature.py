r"""Expectations without chance: finite sums in place of random draws.

The noises $z$ and $\epsilon$ run over the product of Gauss-Hermite nodes, the time over a grid that defines the
integral over t. Where the gradient on a sample is affine in the noises, the gradient in $(A, b)$ has no moments beyond
the second and two nodes a dimension, of equal weight, are exact; elsewhere more nodes give as many digits as wanted.
Training is then deterministic, and an optimum is reached to as many digits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.times import Draw, Sampling
from ..errors import RunError
from ..objective.base import Sample, Term, TermResult
from ..objective.gaussians import normal_nodes
from ..training.engine import Engine


def midpoints(low: float, high: float, count: int) -> Float[Tensor, " times"]:
    """The midpoints of `count` equal cells of `[low, high]`, float64."""
    return low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5) / count


@dataclass(frozen=True)
class Enumeration:
    """All combinations of a generator's noise, a time and a term's noise, in this order of rows.

    It is a `Sampling`: a term draws its times and noises from it.

    Attributes:
        times: the grid, in [0, 1], each of equal weight: midpoints of equal cells.
        dimension: of a sample.
        nodes: Gauss-Hermite nodes a dimension.
    """

    times: Float[Tensor, " times"]
    dimension: int
    nodes: int = 2

    @property
    def rows(self) -> int:
        """How many combinations there are."""
        return len(self.times) * self.nodes ** (2 * self.dimension)

    @property
    def low(self) -> float:
        """Where the cells begin whose midpoints the times are."""
        return float(self.times[0] - self._half_cell)

    @property
    def high(self) -> float:
        """Where they end."""
        return float(self.times[-1] + self._half_cell)

    @property
    def _half_cell(self) -> float:
        return float(self.times[-1] - self.times[0]) / (len(self.times) - 1) / 2

    def importance(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """1 everywhere: all times weigh the same."""
        return torch.ones_like(t)

    @property
    def generator_noise(self) -> Float[Tensor, "rows dimension"]:
        """$z$ of each row."""
        units, _ = normal_nodes(self.dimension, self.nodes)
        return units.repeat_interleave(self.rows // len(units), 0)

    @property
    def weights(self) -> Float[Tensor, " rows"]:
        """What each row counts, 1 on average."""
        _, weights = normal_nodes(self.dimension, self.nodes)
        each = torch.cartesian_prod(weights, torch.ones_like(self.times) / len(self.times), weights).prod(1)
        return each * len(each)

    def __call__(self, x0: Float[Tensor, "batch ..."], random: torch.Generator) -> Draw:
        """Times and noises of a batch of all rows.

        Raises:
            RunError: the batch has another size.
        """
        if len(x0) != self.rows:
            raise RunError(f"An enumeration of {self.rows} rows needs a batch of as many; got {len(x0)}.")
        units, _ = normal_nodes(self.dimension, self.nodes)
        noise = units.repeat(self.rows // len(units), 1).reshape(x0.shape)
        t = self.times.repeat_interleave(len(units)).repeat(len(units))
        return Draw(t.to(x0.device, x0.dtype), noise.to(x0.device, x0.dtype))


class Enumerated(Sampling, Protocol):
    """Rows in place of chance: what a `QuadratureEngine` needs to know of them."""

    @property
    def rows(self) -> int:
        """How many samples a batch has."""

    @property
    def generator_noise(self) -> Float[Tensor, "rows dimension"]:
        """$z$ of each."""

    @property
    def weights(self) -> Float[Tensor, " rows"]:
        """What each counts, 1 on average."""


@dataclass(frozen=True)
class Weighed:
    """A term whose gradients count as the rows of an enumeration do.

    Attributes:
        term: the term.
        enumeration: its rows are the batch.
    """

    term: Term
    enumeration: Enumeration

    def __call__(self, sample: Sample) -> TermResult:
        result = self.term(sample)
        weights = self.enumeration.weights.to(result.grad).reshape(-1, *[1] * (result.grad.ndim - 1))
        return replace(result, grad=weights * result.grad)


@dataclass
class QuadratureEngine(Engine):
    """The engine, its generator's noise enumerated.

    Attributes:
        enumeration: in place of random draws.
    """

    enumeration: Enumerated | None = None

    def draw_noise(self, batch: int, random: torch.Generator | None = None) -> Float[Tensor, "batch ..."]:
        """The generator's noise of every row.

        Raises:
            RunError: the batch has another size than the enumeration.
        """
        assert self.enumeration is not None
        if batch != self.enumeration.rows:
            raise RunError(f"An enumeration of {self.enumeration.rows} rows needs a batch of as many; got {batch}.")
        return self.enumeration.generator_noise.reshape(batch, *self.generator.latent_shape).to(self.random.device)
