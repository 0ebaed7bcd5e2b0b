"""Numbers as a report prints them: as many decimals as their intervals justify, with a true minus sign."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ...evaluation.intervals import Interval
from ...utils.messages import MINUS, number_text


def decimals_for(intervals: Iterable[Interval]) -> int:
    """Decimals that show two digits of the narrowest interval's half-width, or three of the values without a width."""
    intervals = list(intervals)
    widths = [(interval.high - interval.low) / 2 for interval in intervals if interval.high > interval.low]
    if widths:
        return min(6, max(0, 1 - math.floor(math.log10(min(widths)))))
    sizes = [abs(interval.mean) for interval in intervals if interval.mean]
    return min(6, max(0, 2 - math.floor(math.log10(max(sizes))))) if sizes else 1


def text_of(value: float, decimals: int, sign: bool = False) -> str:
    """A number with a true minus sign; 0 is never negative."""
    return number_text(value, f"{'+' if sign else ''},.{decimals}f")


def weight_text(weight: float) -> str:
    """A reward's weight, as short as it is exact to six digits."""
    return number_text(weight, "g")


def range_text(interval: Interval, decimals: int, sign: bool = False) -> str:
    """`[low, high]`; empty where the interval is a point."""
    if interval.high <= interval.low:
        return ""
    return f"[{text_of(interval.low, decimals, sign)}, {text_of(interval.high, decimals, sign)}]"


def change_text(gain: Interval) -> str:
    """A change with its sign, as precise as its interval."""
    return text_of(gain.mean, decimals_for([gain]), True)


def axis_text(value: float) -> str:
    """A tick of an axis: with an exponent where it is very small or very large."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return number_text(value, "g")
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}".replace("-", MINUS)
