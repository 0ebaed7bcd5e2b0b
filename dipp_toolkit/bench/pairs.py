"""Rows against each other: paired tests and win rates over the prompts that both were measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import torch

from ..evaluation.intervals import bootstrap_interval, paired_interval
from .rows import Row, figure_names


@dataclass(frozen=True)
class Comparison:
    """One figure of two rows, prompt by prompt.

    Attributes:
        a, b: labels.
        figure: its name.
        difference: mean of `b - a` over prompts, with `low` and `high` the ends of the 95 % paired bootstrap interval.
        p_value: of the two-sided Wilcoxon signed-rank test (Wilcoxon 1945; zero differences by Pratt's method).
        p_adjusted: by Holm's method (Holm 1979) over all pairs of the same figure.
        win_rate: share of prompts on which `b` is better, ties counted half, with its interval.
        winner: label of the better one where the interval of the difference leaves zero out, and else empty.
    """

    a: str
    b: str
    figure: str
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    win_rate: float
    win_low: float
    win_high: float
    winner: str
    prompts: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def sentence(self) -> str:
        """What was found, in words."""
        numbers = (
            f"{self.difference:+.3g} [{self.low:.3g}, {self.high:.3g}], wins {100 * self.win_rate:.0f} % of prompts, "
            f"p = {self.p_adjusted:.2g}"
        )
        verdict = f"{self.winner} is better" if self.winner else "no measurable difference"
        return f"{self.figure}: {self.b} against {self.a}: {verdict} ({numbers})"


def compare_rows(a: Row, b: Row, figure: str, seed: int = 0) -> Comparison | None:
    """Two rows by one figure; None where they cannot be compared.

    They can where prompts, seeds and image size are the same, the figure's version is, and both have a value a prompt.

    Args:
        a: one row.
        b: the other; positive differences mean that it has more.
        figure: name of a figure.
        seed: of the bootstrap.
    """
    first, second = a.figures.get(figure), b.figures.get(figure)
    same = a.protocol.versions.get(figure) == b.protocol.versions.get(figure) and a.protocol.comparable(b.protocol)
    if first is None or second is None or not same or first.per_prompt is None or second.per_prompt is None:
        return None
    if len(first.per_prompt) != len(second.per_prompt):
        return None
    one = torch.tensor(first.per_prompt, dtype=torch.float64)
    two = torch.tensor(second.per_prompt, dtype=torch.float64)
    gap = paired_interval(one, two, seed)
    sign = -1 if second.better == "lower" else 1
    wins = ((two - one) * sign > 0).double() + 0.5 * (two == one).double()
    rate = bootstrap_interval(wins, seed)
    winner = ""
    if second.better and (gap.low > 0 or gap.high < 0):
        winner = b.label if (gap.mean * sign) > 0 else a.label
    p_value = _wilcoxon(two - one)
    return Comparison(
        a.label,
        b.label,
        figure,
        gap.mean,
        gap.low,
        gap.high,
        p_value,
        p_value,
        rate.mean,
        rate.low,
        rate.high,
        winner,
        len(one),
    )


def _wilcoxon(differences: torch.Tensor) -> float:
    if not differences.any() or len(differences) < 2:
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences.numpy(), zero_method="pratt").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment: the k-th smallest of n times n - k + 1, never less than the one before, at most 1."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    most = 0.0
    for place, index in enumerate(order):
        most = max(most, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = most
    return adjusted


def compare_all(rows: Sequence[Row], figures: Sequence[str] | None = None) -> list[Comparison]:
    """Every pair of rows by every figure that they can be compared by, p values adjusted figure by figure."""
    found: list[Comparison] = []
    for figure in figures if figures is not None else figure_names(rows):
        pairs = [compare_rows(a, b, figure) for a, b in combinations(rows, 2)]
        known = [one for one in pairs if one is not None]
        adjusted = holm([one.p_value for one in known])
        found += [replace(one, p_adjusted=value) for one, value in zip(known, adjusted, strict=True)]
    return found
