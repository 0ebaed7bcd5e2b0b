"""Numbers as a leaderboard writes them."""

from __future__ import annotations

import math

from ...utils.messages import number_text
from ..bench.rows import Figure


def decimals(figure: Figure) -> int:
    """As many as two digits of the interval's width call for, and at most three significant ones of the mean."""
    size = abs(figure.mean)
    places = 2 - math.floor(math.log10(size)) if size > 0 else 3
    if figure.low is not None and figure.high is not None and 0 < figure.high - figure.low < math.inf:
        places = min(places, 1 - math.floor(math.log10(figure.high - figure.low)))
    return min(max(places, 0), 4)


def mean_text(figure: Figure) -> str:
    """The number."""
    return number_text(figure.mean, f".{decimals(figure)}f")


def interval_text(figure: Figure) -> str:
    """`0.12 to 0.34`, empty where there is no interval."""
    if figure.low is None or figure.high is None:
        return ""
    places = decimals(figure)
    return f"{number_text(figure.low, f'.{places}f')} to {number_text(figure.high, f'.{places}f')}"


def arrow(better: str) -> str:
    """Which way is better, as a sign."""
    return {"higher": "\N{UPWARDS ARROW}", "lower": "\N{DOWNWARDS ARROW}"}.get(better, "")


def p_text(value: float) -> str:
    """A p value as people write it."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
