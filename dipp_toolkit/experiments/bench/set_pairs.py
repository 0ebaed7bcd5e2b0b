r"""Rows against each other by a number of the whole set, such as a Frechet distance, which no prompt has for itself.

The difference of two such numbers has the standard error $\sqrt{se_a^2 + se_b^2}$ as if the sets were independent; the
rows share their prompts, which makes the true one smaller as a rule, so this errs towards seeing no difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...evaluation.intervals import Interval, student_quantile
from .rows import Row


@dataclass(frozen=True, kw_only=True)
class SetComparison:
    """One number of the whole set of two rows.

    Attributes:
        a, b: labels.
        figure: its name.
        difference: `b - a`.
        p_value: two-sided, of the difference over its standard error as Student's t.
        better: label of the row with the better number; whether that can be said is the correction's matter.
        apart: whether the two intervals do not touch.
    """

    a: str
    b: str
    figure: str
    difference: float
    p_value: float
    better: str
    apart: bool


def compare_sets(a: Row, b: Row, figure: str) -> SetComparison | None:
    """Two rows by one number of the whole set; None where it has a value a prompt, no interval, no better side, or
    another version."""
    first, second = a.figures.get(figure), b.figures.get(figure)
    same = a.protocol.versions.get(figure) == b.protocol.versions.get(figure) and a.protocol.comparable(b.protocol)
    if first is None or second is None or not same or not first.better:
        return None
    if first.per_prompt is not None or second.per_prompt is not None:
        return None
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return None
    from scipy.special import stdtr

    ends = Interval(first.mean, first.low, first.high), Interval(second.mean, second.low, second.high)
    count = max(2, a.protocol.count)
    quantile = student_quantile(0.95, count)
    error = math.hypot(*((end.high - end.low) / 2 / quantile for end in ends))
    difference = second.mean - first.mean
    statistic = abs(difference) / error if error else math.inf if difference else 0.0
    more = b.label if difference > 0 else a.label
    fewer = a.label if difference > 0 else b.label
    return SetComparison(
        a=a.label,
        b=b.label,
        figure=figure,
        difference=difference,
        p_value=min(1.0, 2 * float(stdtr(count - 1, -statistic))),
        better=more if first.better == "higher" else fewer,
        apart=not ends[0].overlaps(ends[1]),
    )
