r"""Whether two combinations of settings differ measurably by a figure.

Three things are asked. Over prompts, the interval of the difference prompt by prompt leaves zero out; of a number of
the whole set, that of the difference as if its two sides were independent. Over trainings, where every combination has
at least two seeds, so does

$$\bar\Delta \pm t_\nu\, s \sqrt{1/k_a + 1/k_b}$$

with $k$ seeds a side and $s$ the standard deviation from seed to seed within combinations, pooled over the whole study
($\nu$ degrees of freedom), or that of the two sides alone where it is larger. And the difference is large enough to
matter beside the spread over prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...evaluation.intervals import effect_size, matters, paired_interval, student_quantile
from ..bench.rows import Row
from .results import Combination, Study


@dataclass(frozen=True)
class Difference:
    """A figure of one group of trainings against another's.

    Attributes:
        mean: second minus first.
        over_prompts: whether the interval over prompts leaves zero out; None where there is no interval.
        over_seeds: whether that over seeds does; None where no combination has two.
        effect: in standard deviations over prompts; None for a number of the whole set.
    """

    mean: float
    over_prompts: bool | None
    over_seeds: bool | None
    effect: float | None

    @property
    def measurable(self) -> bool:
        """Whether it is certain in every way that is known, and large enough to matter."""
        certain = [verdict for verdict in (self.over_prompts, self.over_seeds) if verdict is not None]
        large = self.effect is None or matters(self.effect)
        return self.mean != 0 and bool(certain) and all(certain) and large


def difference(
    study: Study, first: Sequence[Combination], second: Sequence[Combination], figure: str, level: float = 0.95
) -> Difference:
    """Combinations against others, all seeds of a side put together.

    Args:
        study: that they are of.
        first: combinations with this figure.
        second: others with it.
        figure: its name.
        level: of both intervals; higher where many differences are looked at.
    """
    sides = [
        [row for combination in side for row in combination.rows if figure in row.figures] for side in (first, second)
    ]
    means = [sum(row.figures[figure].mean for row in side) / len(side) for side in sides]
    values = [_per_prompt(side, figure) for side in sides]
    gap = means[1] - means[0]
    seeds = _seeds_apart(study, first, second, figure, gap, level)
    if values[0] is None or values[1] is None or len(values[0]) != len(values[1]):
        return Difference(gap, _sets_apart(sides, figure, gap, level), seeds, None)
    interval = paired_interval(values[0], values[1], level)
    apart = None if interval.low == interval.high and len(values[0]) < 2 else not interval.contains(0.0)
    return Difference(gap, apart, seeds, effect_size(values[0], values[1]))


def _per_prompt(rows: Sequence[Row], figure: str) -> Float[Tensor, " prompts"] | None:
    """Means over trainings, prompt by prompt; None where a row has no value a prompt."""
    values = [row.figures[figure].per_prompt for row in rows]
    if any(row is None or len(row) != len(values[0] or ()) for row in values):
        return None
    return torch.tensor(values, dtype=torch.float64).mean(0)


def _sets_apart(sides: Sequence[Sequence[Row]], figure: str, gap: float, level: float) -> bool | None:
    """By a number of the whole set. Trainings share their prompts, so more of them make it no surer over prompts."""
    errors = []
    count = max(2, sides[0][0].protocol.count)
    for side in sides:
        ends = [(row.figures[figure].low, row.figures[figure].high) for row in side]
        widths = [high - low for low, high in ends if low is not None and high is not None]
        if len(widths) < len(ends):
            return None
        errors.append(sum(widths) / len(widths) / 2 / student_quantile(0.95, count))
    return abs(gap) > student_quantile(level, count) * math.hypot(*errors)


def _seeds_apart(
    study: Study, first: Sequence[Combination], second: Sequence[Combination], figure: str, gap: float, level: float
) -> bool | None:
    everywhere, freedom = _within(study.combinations, figure)
    if not freedom or any(len(combination.rows) < 2 for combination in (*first, *second)):
        return None
    here, _ = _within([*first, *second], figure)
    counts = [sum(len(combination.rows) for combination in side) for side in (first, second)]
    error = math.sqrt(max(everywhere, here) * sum(1 / count for count in counts))
    return abs(gap) > student_quantile(level, freedom + 1) * error


def _within(combinations: Sequence[Combination], figure: str) -> tuple[float, int]:
    """Variance from seed to seed within combinations, pooled, and its degrees of freedom."""
    squares, freedom = 0.0, 0
    for combination in combinations:
        values = [row.figures[figure].mean for row in combination.rows if figure in row.figures]
        if len(values) > 1:
            mean = sum(values) / len(values)
            squares += sum((value - mean) ** 2 for value in values)
            freedom += len(values) - 1
    return (squares / freedom if freedom else 0.0), freedom
