"""Rows that papers report. They are shown beside measured ones and never ranked against them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..bench.rows import Row, read_rows

FILE = Path(__file__).with_name("reported.jsonl")


def reported_rows() -> list[Row]:
    """All of them."""
    return read_rows(FILE)


def fitting(measured: Sequence[Row]) -> list[Row]:
    """Those that share a figure with a measured row, so that there is something to read beside each other."""
    names = {name for row in measured for name in row.figures}
    return [row for row in reported_rows() if names & row.figures.keys()]
