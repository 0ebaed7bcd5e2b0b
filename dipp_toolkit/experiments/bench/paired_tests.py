"""Rows against each other: paired tests and win rates over the prompts that both were measured on.

A row is called better where three things hold: the test finds a difference after correction for everything that was
tested beside it, the interval of the mean difference leaves zero out on the same side, and the difference is large
enough to matter. With the correction over all pairs and all figures of a section, a winner among generators that are
all the same is seen in at most 5 % of sections, however many generators and figures there are
(`benchmarks/false_winners/run.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...evaluation.intervals import LEAST_EFFECT, effect_size, matters, paired_interval, share_interval
from ...utils.messages import number_text
from .rows import PromptValues, Row, figure_names
from .set_pairs import SetComparison, compare_sets

LEVEL = 0.05
"""Most often that any difference may be called one among generators that are all the same."""


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjustment: the k-th smallest of n times n - k + 1, never less than the one before, at most 1.

    Calling what falls below `LEVEL` a difference is wrong, anywhere among the n, in at most that share of cases.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    most = 0.0
    for place, index in enumerate(order):
        most = max(most, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = most
    return adjusted


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One figure of two rows, prompt by prompt.

    Attributes:
        a, b: labels.
        figure: its name.
        difference: mean of `b - a` over prompts, with `low` and `high` the ends of its 95 % paired interval.
        effect: the difference in standard deviations over prompts; infinite where neither row varies.
        p_value: of the two-sided Wilcoxon signed-rank test (Wilcoxon 1945; zero differences by Pratt's method).
        p_adjusted: by Holm's method over all pairs and all figures of a section that say which way is better; of other
            figures over their own pairs.
        win_rate: share of prompts on which `b` is better, ties counted half, with Wilson's interval.
        ahead: label of the row with the better mean; empty where neither way is better or the means are equal.
        prompts: how many.
        warned: names of the monitors' warnings that the row ahead carries.
    """

    a: str
    b: str
    figure: str
    difference: float
    low: float
    high: float
    effect: float
    p_value: float
    p_adjusted: float
    win_rate: float
    win_low: float
    win_high: float
    ahead: str
    prompts: int
    warned: tuple[str, ...] = ()

    @property
    def certain(self) -> bool:
        """Whether the corrected test and the interval both see a difference."""
        return self.p_adjusted < LEVEL and (self.low > 0 or self.high < 0)

    @property
    def winner(self) -> str:
        """Label of the row that is measurably better; empty where that cannot be said of either."""
        return self.ahead if self.certain and matters(self.effect) else ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the winner; an effect without a bound is null."""
        return asdict(self) | {"effect": self.effect if math.isfinite(self.effect) else None, "winner": self.winner}

    def verdict(self) -> str:
        """Who is better, or why nobody is called so."""
        if self.winner and self.warned:
            way = "higher" if (self.difference > 0) == (self.winner == self.b) else "lower"
            return f"{self.winner} scores measurably {way}, but carries a warning of {' and '.join(self.warned)}"
        if self.winner:
            return f"{self.winner} is better"
        if self.certain and not matters(self.effect):
            return f"a difference too small to matter (less than {LEAST_EFFECT:g} standard deviations over prompts)"
        if self.certain and self.difference:
            return "a measurable difference, of which neither side is better"
        return "no measurable difference"

    def sentence(self) -> str:
        """What was found, in words."""
        numbers = (
            f"{number_text(self.difference, '+.3g')} [{number_text(self.low)}, {number_text(self.high)}], "
            f"{number_text(self.effect, '+.2f')} standard deviations over prompts, "
            f"wins {100 * self.win_rate:.0f} % of {self.prompts} prompts, corrected p = {self.p_adjusted:.2g}"
        )
        return f"{self.figure}: {self.b} against {self.a}: {self.verdict()} ({numbers})"


def compare_rows(a: Row, b: Row, figure: str, values: PromptValues | None = None) -> Comparison | None:
    """Two rows by one figure, as if nothing else was tested; None where they cannot be compared.

    They can where prompts, seeds and image size are the same, the figure's version is, and both have a value a prompt.

    Args:
        a: one row.
        b: the other; positive differences mean that it has more.
        figure: name of a figure.
        values: where other pairs of the rows are compared as well, their values.
    """
    values = values or PromptValues()
    first, second = values(a.figures.get(figure)), values(b.figures.get(figure))
    same = a.protocol.versions.get(figure) == b.protocol.versions.get(figure) and a.protocol.comparable(b.protocol)
    if first is None or second is None or not same or len(first) != len(second):
        return None
    pair = compare_values(a.label, b.label, figure, first, second, b.figures[figure].better)
    warned = {row.label: tuple(dict.fromkeys(warning.name for warning in row.warnings)) for row in (a, b)}
    return replace(pair, warned=warned.get(pair.ahead, ()))


def compare_values(
    a: str,
    b: str,
    figure: str,
    first: Float[Tensor, " prompts"],
    second: Float[Tensor, " prompts"],
    better: str = "higher",
) -> Comparison:
    """Values of the same prompts against each other.

    Args:
        a: label of the first.
        b: label of the second.
        figure: what the values are.
        first: one a prompt.
        second: one a prompt, in the same order.
        better: `higher`, `lower` or empty.
    """
    gap = paired_interval(first, second)
    sign = -1 if better == "lower" else 1
    wins = ((second - first) * sign > 0).double() + 0.5 * (second == first).double()
    rate = share_interval(wins)
    p_value = _wilcoxon(second - first)
    return Comparison(
        a=a,
        b=b,
        figure=figure,
        difference=gap.mean,
        low=gap.low,
        high=gap.high,
        effect=effect_size(first, second),
        p_value=p_value,
        p_adjusted=p_value,
        win_rate=rate.mean,
        win_low=rate.low,
        win_high=rate.high,
        ahead="" if not better or not gap.mean else b if gap.mean * sign > 0 else a,
        prompts=len(first),
    )


def _wilcoxon(differences: torch.Tensor) -> float:
    if not differences.any() or len(differences) < 2:
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences.numpy(), zero_method="pratt").pvalue)


@dataclass(frozen=True)
class Comparisons:
    """All pairs of a section's rows by all its figures, corrected together.

    Attributes:
        pairs: by figures with a value a prompt.
        beaten: by figure, the worse row of every pair that differs measurably, once for each row that beats it.
    """

    pairs: Sequence[Comparison]
    beaten: Sequence[tuple[str, str]]


def compare_section(rows: Sequence[Row], figures: Sequence[str] | None = None) -> Comparisons:
    """Every pair of rows by every figure that they can be compared by.

    A number of the whole set has no test prompt by prompt: there a row is better where the two intervals do not touch
    and the corrected p value of the difference says so as well.

    Args:
        rows: of one protocol.
        figures: the figures to compare by, which is what is corrected for; all where None.
    """
    names = list(figures) if figures is not None else figure_names(rows)
    values = PromptValues()
    paired = [compare_rows(a, b, name, values) for name in names for a, b in combinations(rows, 2)]
    pairs = [pair for pair in paired if pair is not None]
    sets = [compare_sets(a, b, name) for name in names for a, b in combinations(rows, 2)]
    whole = [pair for pair in sets if pair is not None]
    directed = {name for name in names if any(row.figures[name].better for row in rows if name in row.figures)}
    # What no verdict can come from takes no part in the correction of the verdicts.
    family: list[Comparison | SetComparison] = [*(pair for pair in pairs if pair.figure in directed), *whole]
    adjusted = dict(zip(map(id, family), holm([pair.p_value for pair in family]), strict=True))
    for name in names:
        others = [pair for pair in pairs if pair.figure == name and name not in directed]
        adjusted |= dict(zip(map(id, others), holm([pair.p_value for pair in others]), strict=True))
    pairs = [replace(pair, p_adjusted=adjusted[id(pair)]) for pair in pairs]
    beaten = [(pair.figure, pair.a if pair.winner == pair.b else pair.b) for pair in pairs if pair.winner]
    beaten += [
        (pair.figure, pair.a if pair.better == pair.b else pair.b)
        for pair in whole
        if pair.apart and adjusted[id(pair)] < LEVEL
    ]
    return Comparisons(pairs, beaten)


def compare_all(rows: Sequence[Row], figures: Sequence[str] | None = None) -> list[Comparison]:
    """The pairs of `compare_section`."""
    return list(compare_section(rows, figures).pairs)
