"""A leaderboard as Markdown, for a README."""

from __future__ import annotations

import re

from ...evaluation.intervals import LEAST_EFFECT, Interval
from ...prompts.subsets import counted_prompts
from ...utils.messages import Spelling, number_text
from .board import Board, Section, arrow, by_source, interval_text, mean_text
from .votes import VoteBoard, percent, percents

_MARKS = re.compile(r"([\\`*_\[\]#|~$])")
"""What Markdown would read as something else than itself inside a cell or a footnote."""


def escaped(text: str) -> str:
    """Anybody's text as Markdown shows it, on one line: no link, picture, heading, footnote or HTML of its own."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    line = _MARKS.sub(r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
    # Addresses and names of people become links by themselves where Markdown is shown.
    return line.replace("://", ":&#47;&#47;").replace("www.", "www&#46;").replace("@", "&#64;")


def _section(section: Section, notes: list[str]) -> list[str]:
    names = section.columns
    protocol = section.rows[0].protocol
    spelling = Spelling(section.figures)
    head = [
        "rank",
        "generator",
        "evaluations",
        *(f"{escaped(spelling.name(name))} {arrow(section.figure(name).better)}".strip() for name in names),
    ]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in section.rows:
        marks = []
        for warning in row.warnings:
            notes.append(
                f"[^{len(notes) + 1}]: {escaped(row.label)}, {escaped(warning.name)}: "
                + escaped(spelling.text(warning.text))
            )
            marks.append(f"[^{len(notes)}]")
        cells = [str(section.ranks[section.sort].get(row.label, "-")), escaped(row.label) + "".join(marks)]
        cells.append("-" if row.subject.evaluations is None else str(row.subject.evaluations))
        for name in names:
            figure = row.figures.get(name)
            interval = interval_text(figure) if figure else ""
            cells.append("-" if figure is None else mean_text(figure) + (f" ({interval})" if interval else ""))
        lines.append(f"| {' | '.join(cells)} |")
    noises = f"{len(protocol.seeds)} noise{'s' * (len(protocol.seeds) != 1)} each"
    measured = (
        f"{escaped(counted_prompts(protocol.count, protocol.prompts))}, {noises}; means with 95 % intervals over "
        "prompts. "
    )
    rank = (
        f"The rank is by {escaped(spelling.name(section.sort))}: 1 plus the number of rows that are measurably "
        f"better, by a paired test corrected for all pairs and figures and by at least {LEAST_EFFECT:g} standard "
        "deviations over prompts."
    )
    return [*lines, "", measured + rank, ""]


def _votes(votes: VoteBoard) -> list[str]:
    def share(found: tuple[Interval, int] | None) -> str:
        return f"{percent(found[0].mean)} ({percents(found[0])})" if found else "-"

    lines = []
    if votes.makers:
        lines += ["| rank | maker | rating | wins against all others | votes |", "|---|---|---|---|---|"]
        for maker in votes.makers:
            ends = (number_text(end, ".0f") for end in (maker.rating.low, maker.rating.high))
            rating = f"{number_text(maker.rating.mean, '+.0f')} ({' to '.join(ends)})"
            wins = share((maker.win_rate, maker.votes))
            lines.append(f"| {maker.rank} | {escaped(maker.label)} | {rating} | {wins} | {maker.votes} |")
        lines += ["", "Bradley-Terry ratings in Elo points, mean 0, with 95 % intervals over prompts."]
    lines += [votes.summary, ""]
    if len(votes.makers) > 1:
        lines += [f"| over | {' | '.join(escaped(maker.label) for maker in votes.makers)} |"]
        lines += ["|" + "---|" * (1 + len(votes.makers))]
        for maker in votes.makers:
            cells = [share(votes.win_rates.get((maker.name, other.name))) for other in votes.makers]
            lines.append(f"| {escaped(maker.label)} | {' | '.join(cells)} |")
        lines += ["", "The share of votes that the maker of the row won, ties half.", ""]
    if votes.agreements:
        head = ["agreement with a person", "all prompts", *map(escaped, votes.categories)]
        lines += [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        for name, found in votes.agreements.items():
            cells = [share((found.share, found.count))]
            cells += [share(found.by_category.get(category)) for category in votes.categories]
            lines.append(f"| {escaped(name)} | {' | '.join(cells)} |")
        lines += ["", "A tie counts half with anything: chance is 50 %.", ""]
    lines += ["| voter | votes | ties | agrees with others | asked again |", "|---|---|---|---|---|"]
    for voter in votes.shown_voters:
        both = (share((found.share, found.count)) if found else "-" for found in (voter.others, voter.itself))
        lines.append(f"| {escaped(voter.name)} | {voter.votes} | {voter.ties} | {' | '.join(both)} |")
    lines += ["", *(f"- {escaped(sentence)}" for sentence in votes.warnings)]
    return [*lines, ""] if votes.warnings else lines


def to_markdown(board: Board, votes: VoteBoard | None = None) -> str:
    """What people said, tables of all sections, reported rows marked, warnings as footnotes."""
    notes: list[str] = []
    lines: list[str] = _votes(votes) if votes else []
    for section in board.sections:
        lines += _section(section, notes)
    for table in by_source(board.reported):
        head = ["*reported*, not ranked", *map(escaped, table.figures.values())]
        lines += [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        for row in table.rows:
            cells = [number_text(row.figures[name].mean, "g") if name in row.figures else "-" for name in table.figures]
            lines.append(f"| *{escaped(row.label)}* | {' | '.join(cells)} |")
        sentences = [f"Source: {table.source}", f"Prompts: {table.prompts}", table.note, *table.notes]
        lines += ["", escaped(" ".join(f"{sentence.rstrip('.')}." for sentence in sentences if sentence)), ""]
    if board.reported:
        lines += [
            "Reported by the papers on other prompts, seeds and images; no rank can be given against measured rows.",
            "",
        ]
    return "\n".join([*lines, *notes]).rstrip() + "\n"
