"""Numbers that change over a run: straight lines between values at generator updates."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import RequestError
from .messages import quoted, shown

EXAMPLE = "0:1,200:4.5"


@dataclass(frozen=True)
class PiecewiseLinear:
    """A number for every generator update, the first being 0.

    Attributes:
        points: updates and the numbers there, the updates rising; before the first and after the last the number stays.
    """

    points: tuple[tuple[int, float], ...]

    @classmethod
    def parse(cls, text: str) -> PiecewiseLinear:
        """From a text such as `0:1,200:4.5`.

        Raises:
            RequestError: it is not a schedule, a number is negative or not finite, or the updates do not rise.
        """
        points: list[tuple[int, float]] = []
        for part in filter(None, map(str.strip, text.split(","))):
            update, colon, number = part.partition(":")
            try:
                point = int(update), float(number) if colon else math.nan
            except ValueError:
                point = -1, math.nan
            if point[0] < 0 or not math.isfinite(point[1]) or point[1] < 0:
                raise RequestError(
                    f"'{shown(part)}' is not UPDATE:NUMBER, with a whole number and a number of at least 0; an "
                    f"example is {EXAMPLE}."
                )
            if points and point[0] <= points[-1][0]:
                raise RequestError(
                    f"Update {point[0]} comes after update {points[-1][0]}; expected rising updates, as in {EXAMPLE}."
                )
            points.append(point)
        if not points:
            raise RequestError(f"It has no update; an example is {EXAMPLE}.")
        return cls(tuple(points))

    def __call__(self, step: int) -> float:
        """The number at an update."""
        after = bisect_right(self.points, step, key=lambda point: point[0])
        if after in (0, len(self.points)):
            return self.points[min(after, len(self.points) - 1)][1]
        (begin, low), (end, high) = self.points[after - 1 : after + 1]
        return low + (high - low) * (step - begin) / (end - begin)

    def __str__(self) -> str:
        return ",".join(f"{update}:{number:g}" for update, number in self.points)

    @property
    def peak(self) -> int:
        """The first of the updates at which the number is largest."""
        return max(self.points, key=lambda point: point[1])[0]

    def within(self, steps: int) -> set[float]:
        """Numbers of a run between which all of its others lie.

        Args:
            steps: updates of the run, at least 1.
        """
        return {self(step) for step in (0, steps - 1, *(update for update, _ in self.points if update < steps))}


def value_at(number: float | PiecewiseLinear, step: int) -> float:
    """What a number is at an update, whether it changes or not."""
    return number(step) if isinstance(number, PiecewiseLinear) else number


def schedule_text(value: Any) -> Any:
    """A schedule as settings keep it: a text that `parse` reads, from such a text or a mapping; None for none, which on
    a command line is `null`.

    Raises:
        ValueError: it is not a schedule.
    """
    if value is None or value == "null":
        return None
    if isinstance(value, Mapping):
        value = ",".join(f"{update}:{number}" for update, number in value.items())
    if not isinstance(value, str):
        raise ValueError(f"{quoted(value)} is not a text; expected updates with numbers, as in {EXAMPLE}")
    try:
        parsed = PiecewiseLinear.parse(value)
    except RequestError as error:
        raise ValueError(str(error).removesuffix(".")) from error
    return ",".join(f"{update}:{number!r}".removesuffix(".0") for update, number in parsed.points)
