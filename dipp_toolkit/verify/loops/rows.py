"""The table that a loop's check makes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

Numbers = float | list[float] | list[list[float]]


@dataclass(frozen=True)
class LoopRow:
    """One property of a training loop, as it should be and as it was seen.

    Attributes:
        case: name of the case.
        quantity: what was looked at, `"inputs of step 2"` say.
        expected: what a right loop shows.
        reached: what this one showed.
        error: how far they are apart; each check says in which unit.
        tolerance: largest error that passes: a size, or the standard errors of the estimate where they are larger.
        meaning: where the row fails, what that means and the usual cause; otherwise empty.
    """

    case: str
    quantity: str
    expected: Numbers
    reached: Numbers
    error: float
    tolerance: float
    meaning: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; an error that is no number is not."""
        return self.error <= self.tolerance

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON, `passed` included; what is no finite number becomes None."""
        return {name: _finite(value) for name, value in {**asdict(self), "passed": self.passed}.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(number) for number in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
