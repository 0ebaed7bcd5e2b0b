"""Lines of `diagnostics.jsonl`, read by what they hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def numbers(rows: Sequence[Row], *path: str) -> list[tuple[int, float]]:
    """Step and value of every line that has a finite number there, as `numbers(rows, "divergence", "nats")`."""
    found = []
    for row in rows:
        value: Any = row
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, (int, float)) and math.isfinite(value):
            found.append((int(row["step"]), float(value)))
    return found


def left(values: Sequence[float], healthy: Callable[[float], bool]) -> bool:
    """Whether a number that belongs to single updates has left its range: in the last diagnosis, or in most.

    A run that ends gently, with a falling learning rate, is not excused for what went before.
    """
    outside = [not healthy(value) for value in values]
    return bool(outside) and (outside[-1] or 2 * sum(outside) > len(outside))


def how_often(values: Sequence[float], healthy: Callable[[float], bool]) -> str:
    """ "in 3 of 4 diagnoses"."""
    count = len(values)
    return f"in {sum(not healthy(value) for value in values)} of {count} diagnos{'es' if count != 1 else 'is'}"
