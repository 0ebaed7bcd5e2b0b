"""What a loop was seen to do, gathered, with the laws it should have followed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ...objective.gaussians import Gaussian
from ..rows import LoopRow
from .chain import Chain
from .levels import Levels
from .networks import Exact
from .recording import Call, FakeScoreUpdate, GeneratorUpdate

SIZE = 0.05
"""A deviation of this many standard deviations is let pass, however sure it is."""

ERRORS = 5
"""A deviation of this many standard errors is let pass, however large it is."""


@dataclass(frozen=True)
class Evidence:
    """A loop's updates on one case.

    Attributes:
        case: its name.
        levels: noise levels by timestep.
        chain: how the generator's steps follow each other in sampling.
        timesteps: of the steps.
        laws: of the generator's samples, by number.
        data: the reference's law with a prompt.
        target: the law that the case's divergence is to.
        target_empty: the reference's law without a prompt.
        generator_updates: steps of the generator's optimiser.
        fake_score_updates: steps of the fake score's optimiser, at the exact score.
        displaced_updates: steps of it while the score was off by `offset`.
        offset: on the denoised sample.
        sampling: the generator's calls in the loop's own sampler; None where it has none.
        slope: of the case's reward, times its scale; None where there is none.
        guidance: of the case.
    """

    case: str
    levels: Levels
    chain: Chain
    timesteps: Float[Tensor, " steps"]
    laws: tuple[Gaussian, ...]
    data: Gaussian
    target: Gaussian
    target_empty: Gaussian
    generator_updates: list[GeneratorUpdate]
    fake_score_updates: list[FakeScoreUpdate]
    displaced_updates: list[FakeScoreUpdate]
    offset: Float[Tensor, " dimension"]
    sampling: list[Call] | None
    slope: Tensor | None
    guidance: float
    exact: tuple[Exact, ...] = field(init=False)
    parameters: tuple[tuple[Tensor, Tensor], ...] = field(init=False)
    reads: tuple[list[Gaussian], ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "exact", tuple(Exact(law, law) for law in self.laws))
        object.__setattr__(self, "parameters", tuple(self.chain.solve(law) for law in self.laws))
        object.__setattr__(self, "reads", tuple(self.chain.reads(*both) for both in self.parameters))

    @property
    def steps(self) -> int:
        """How many steps the generator has."""
        return len(self.timesteps)

    def fitted(self) -> Iterator[tuple[int, Call]]:
        """Each call of the fake score that it was trained with, and the number of the generator's law then."""
        for update in self.fake_score_updates:
            for call in update.calls:
                yield update.law, call

    def row(self, quantity: str, expected: float, reached: float, tolerance: float, meaning: str) -> LoopRow:
        """A row of two numbers; its error is their difference."""
        error = abs(reached - expected)
        return LoopRow(
            self.case, quantity, expected, reached, error, tolerance, "" if error <= tolerance else meaning
        )  # fmt: skip


def standardised(law: Gaussian, x: Float[Tensor, "batch dimension"]) -> Float[Tensor, "batch dimension"]:
    """What is standard normal where x is of the law."""
    ones = torch.ones(len(x), dtype=x.dtype)
    return Exact(law, law).standard(x, ones, 0 * ones)


@dataclass(frozen=True)
class Moments:
    """How far rows are from standard normal.

    Attributes:
        mean: of each column.
        covariance: of the columns.
        count: of rows.
    """

    mean: Float[Tensor, " columns"]
    covariance: Float[Tensor, "columns columns"]
    count: int

    @classmethod
    def of(cls, rows: Float[Tensor, "batch columns"]) -> Moments:
        """Mean and covariance of rows; of fewer than two they are no numbers."""
        return cls(rows.mean(0), rows.mT.cov(), len(rows))

    @property
    def error(self) -> float:
        """The largest deviation of an entry of mean or covariance."""
        identity = torch.eye(len(self.covariance), dtype=self.mean.dtype)
        return torch.cat([self.mean.abs(), (self.covariance - identity).abs().flatten()]).max().item()

    @property
    def tolerance(self) -> float:
        """`SIZE`, or `ERRORS` standard errors of a variance, which is the entry known least."""
        return max(SIZE, ERRORS * math.sqrt(2 / max(self.count, 1)))

    @property
    def excess(self) -> float:
        """Error by tolerance."""
        return self.error / self.tolerance

    def row(self, case: str, quantity: str, meaning: Callable[[], str], columns: int = 3) -> LoopRow:
        """Means and variances of the first columns, expected 0 and 1; the error is that of all."""
        reached = [self.mean[:columns].tolist(), self.covariance.diagonal()[:columns].tolist()]
        held = self.error <= self.tolerance
        return LoopRow(
            case, quantity, [[0.0] * columns, [1.0] * columns], reached, self.error, self.tolerance,
            "" if held else meaning(),
        )  # fmt: skip


def worst_part(rows: Tensor, part: Tensor, beside: int = 0) -> Moments:
    """The moments of the part that is furthest from standard normal; parts with less than 2 % of the rows are left.

    Args:
        rows: to be standard normal.
        part: which part each row belongs to.
        beside: how many of the last columns only have to be uncorrelated with the others.
    """
    parts = [rows[part == number] for number in part.unique()]
    large = [Moments.of(own) for own in parts if len(own) >= max(len(rows) / 50, 2)]
    for moments in large:
        free = rows.shape[1] - beside
        moments.mean[free:] = 0
        moments.covariance[free:, free:] = torch.eye(beside, dtype=rows.dtype)
    return max(large, key=lambda moments: moments.excess if moments.excess == moments.excess else math.inf)
