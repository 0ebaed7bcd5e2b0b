"""Tables, lists and numbers of the page, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from dipp_toolkit.evaluation.intervals import Interval


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def list_of(sentences: Sequence[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def interval_text(interval: Interval) -> str:
    """`mean [low, high]`."""
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def spread_text(values: Sequence[float], digits: int) -> str:
    """The mean, and of several runs the lowest and the highest."""
    mean = f"{sum(values) / len(values):.{digits}f}"
    return f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else mean
