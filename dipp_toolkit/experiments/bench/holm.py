"""Holm's correction of p values for how many were looked at."""

from __future__ import annotations

from collections.abc import Sequence

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
