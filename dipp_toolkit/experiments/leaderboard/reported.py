"""Rows that papers report. They are shown beside measured ones and never ranked against them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..bench.rows import Row, figure_names, read_rows

FILE = Path(__file__).with_name("reported.jsonl")


@dataclass(frozen=True)
class ReportedTable:
    """Rows that one source reports of the same prompts.

    Attributes:
        source: paper or page, and the table in it.
        prompts: what the source says of them.
        note: what a reader has to know of all its numbers.
        figures: names, with what is known of the version behind each.
        rows: in the source's order.
    """

    source: str
    prompts: str
    note: str
    figures: dict[str, str]
    rows: Sequence[Row]

    @property
    def notes(self) -> list[str]:
        """What a reader has to know of single rows."""
        return [f"{row.label}: {note}" for row in self.rows for note in row.notes]


def reported_rows() -> list[Row]:
    """All of them."""
    return read_rows(FILE)


def fitting(measured: Sequence[Row]) -> list[Row]:
    """Those that share a figure with a measured row, so that there is something to read beside each other."""
    names = {name for row in measured for name in row.figures}
    return [row for row in reported_rows() if names & row.figures.keys()]


def by_source(rows: Sequence[Row]) -> list[ReportedTable]:
    """Reported rows as a table for each source, set of prompts and versions: numbers of two sources share no column."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        versions = (f"{name} {version}" for name, version in sorted(row.protocol.versions.items()))
        groups.setdefault((row.source, row.protocol.prompts, row.protocol.note, *versions), []).append(row)
    return [
        ReportedTable(source, prompts, note, _headings(group), group)
        for (source, prompts, note, *_), group in groups.items()
    ]


def _headings(rows: Sequence[Row]) -> dict[str, str]:
    """What each figure's column is called: its name, and its version where one is known."""
    versions = rows[0].protocol.versions
    return {name: f"{name} ({versions[name]})" if name in versions else name for name in figure_names(rows)}
