"""Rows in order: a section for each protocol, ranks within it, and never across."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from ...errors import RequestError
from ...evaluation.rank_agreement import PairAgreement, pairwise_agreement
from ...utils.messages import number_text, unknown_name
from ..bench.paired_tests import Comparison, compare_section
from ..bench.rows import Figure, PromptValues, Row, figure_names, read_rows


@dataclass(frozen=True)
class Section:
    """Rows that were measured alike.

    Attributes:
        rows: best first.
        figures: names of all figures, rewards before judges before metrics before costs.
        pairs: every pair by every figure.
        sort: the figure that decides the order.
        ranks: by figure and label, 1 plus the number of rows that are measurably better, as `compare_section` finds
            them over all pairs and all figures of the section.
    """

    rows: Sequence[Row]
    figures: Sequence[str]
    pairs: Sequence[Comparison]
    sort: str
    ranks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def figure(self, name: str) -> Figure:
        """Any row's figure of this name: its role and which way is better."""
        return next(row.figures[name] for row in self.rows if name in row.figures)

    def named(self, *roles: str) -> list[str]:
        """Figures with these roles."""
        return [name for name in self.figures if self.figure(name).role in roles]

    @property
    def columns(self) -> list[str]:
        """Figures of the main table, without parts of another figure such as `parameters-vae`."""
        return [name for name in self.figures if not any(name.startswith(f"{other}-") for other in self.figures)]


@dataclass(frozen=True)
class Board:
    """A whole leaderboard.

    Attributes:
        sections: measured rows, a section for each protocol.
        reported: rows of papers, in no order.
    """

    sections: Sequence[Section]
    reported: Sequence[Row]


ROLES = ("reward", "judge", "metric", "cost")


def make_board(rows: Sequence[Row], sort: str | None = None) -> Board:
    """Group, rank and order rows.

    Args:
        rows: of any files; a row that stands twice (same label, weights and protocol) is taken once, the later one.
        sort: figure that decides the order; the first judge, or else the first reward, or else the first
            figure with a better side, where None.

    Raises:
        RequestError: no row is measured, or none has the figure to sort by.
    """
    latest: dict[tuple[object, ...], Row] = {}
    for row in rows:
        protocol = row.protocol
        key = (row.kind, row.label, row.subject.fingerprint, row.source, protocol.digest, protocol.seeds, protocol.size)
        latest.pop(key, None)
        latest[key] = row
    measured = [row for row in latest.values() if row.kind == "measured"]
    if not measured:
        raise RequestError("There are no measured rows to show; make some with dipp bench.")
    groups: list[list[Row]] = []
    for row in measured:
        for group in groups:
            if group[0].protocol.comparable(row.protocol):
                group.append(row)
                break
        else:
            groups.append([row])
    names = figure_names(measured)
    if sort is not None and sort not in names:
        raise RequestError(unknown_name("figure", sort, names))
    return Board(
        [_section(_told_apart(group), sort) for group in groups],
        [row for row in latest.values() if row.kind == "reported"],
    )


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """Rows that share a label although their weights differ get the start of their fingerprint beside it."""
    labels = Counter(row.label for row in rows)

    def renamed(row: Row) -> Row:
        if labels[row.label] == 1:
            return row
        label = f"{row.label} ({row.subject.fingerprint[:8] or 'unknown weights'})"
        return row.model_copy(update={"subject": row.subject.model_copy(update={"label": label})})

    return [renamed(row) for row in rows]


def _section(rows: Sequence[Row], sort: str | None) -> Section:
    names = [name for role in ROLES for name in figure_names(rows, role)]
    names = list(dict.fromkeys(names))
    by_role = {role: figure_names(rows, role) for role in ROLES}
    directed = [name for name in names if any(row.figures[name].better for row in rows if name in row.figures)]
    chosen = sort if sort in names else next(iter([*by_role["judge"], *by_role["reward"], *directed, *names]))
    compared = compare_section(rows, names)
    ranks: dict[str, dict[str, int]] = {name: {row.label: 1 for row in rows if name in row.figures} for name in names}
    for name, label in compared.beaten:
        ranks[name][label] += 1
    sign = -1 if next(row.figures[chosen] for row in rows if chosen in row.figures).better == "lower" else 1
    absent = float("-inf")
    ordered = sorted(rows, key=lambda row: sign * row.figures[chosen].mean if chosen in row.figures else absent)
    return Section(ordered[::-1], names, compared.pairs, chosen, ranks)


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


@dataclass(frozen=True)
class PairOfRows:
    """Two rows, and for every reward and judge on how many prompts both prefer the same one.

    Attributes:
        a, b: labels.
        shares: by reward and judge; a combination is missing where the two cannot be compared or nothing is decided.
    """

    a: str
    b: str
    shares: Mapping[tuple[str, str], PairAgreement]


def agreements(section: Section) -> list[PairOfRows]:
    """Every pair of rows of a section; none where it has no judge or no reward."""
    kinds = [(reward, judge) for reward in section.named("reward") for judge in section.named("judge")]
    values = PromptValues()
    pairs = []
    for a, b in combinations(section.rows, 2):
        shares = {}
        for reward, judge in kinds:
            share = _share(a, b, reward, judge, values)
            if share is not None:
                shares[reward, judge] = share
        if shares:
            pairs.append(PairOfRows(a.label, b.label, shares))
    return pairs


def _share(a: Row, b: Row, reward: str, judge: str, values: PromptValues) -> PairAgreement | None:
    scores = []
    for name in (reward, judge):
        for row in (a, b):
            per_prompt = values(row.figures.get(name))
            if per_prompt is None:
                return None
            scores.append(per_prompt)
        if a.protocol.versions.get(name) != b.protocol.versions.get(name):
            return None
    decided = ((scores[0] != scores[1]) & (scores[2] != scores[3])).any()
    return pairwise_agreement(scores[0], scores[1], scores[2], scores[3]) if decided else None


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
