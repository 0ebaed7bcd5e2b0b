"""Sizes of a gradient in a run's first updates."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median

MEASURED = 16
"""Updates that a size is measured over."""


@dataclass
class FirstSizes:
    """The first sizes of a gradient, one an update, as far as it was neither 0 nor infinite; their median is held.

    Attributes:
        values: at most `MEASURED`.
    """

    values: list[float] = field(default_factory=list)

    def add(self, size: float) -> None:
        """Take an update's size in, unless there are enough."""
        if not self.full and 0 < size < math.inf:
            self.values.append(size)

    @property
    def full(self) -> bool:
        """Whether nothing is taken in any more."""
        return len(self.values) >= MEASURED

    @property
    def usual(self) -> float | None:
        """The median; None before the first."""
        return median(self.values) if self.values else None
