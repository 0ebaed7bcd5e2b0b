"""The leaderboard's page: one file, no network, readable without scripts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from markupsafe import Markup

from ...evaluation.intervals import LEAST_EFFECT
from ...prompts.subsets import counted_prompts
from ...report.charts.scatter import Point, scatter
from ...report.templates import template
from ...utils.atomic import write_text
from ...utils.messages import Spelling, number_text
from ..bench.paired_tests import LEVEL, Comparison
from ..bench.rows import Picture, Row
from .board import Board, Section, agreements, arrow, by_source, interval_text, mean_text, p_text
from .check import PICTURE
from .votes import VoteBoard, percent, percents

PIXEL_ART = 128
MOST_AXES = 8
"""Most figures that either axis of the Pareto plot offers."""


@dataclass(frozen=True)
class Plot:
    """One reward against one measure of fidelity."""

    x: str
    y: str
    chart: Markup


def axes(section: Section) -> tuple[list[str], list[str]]:
    """Figures for the horizontal and for the vertical axis: distances first, then judges; rewards, then judges."""
    metrics = section.named("metric")
    lower = [name for name in metrics if section.figure(name).better == "lower"]
    others = [name for name in metrics if name not in lower]
    x = [*lower, *section.named("judge"), *others, *section.named("reward")]
    return x[:MOST_AXES], [*section.named("reward"), *section.named("judge")][:MOST_AXES]


def letter(index: int) -> str:
    """`A` to `Z`, then `AA`: what points are called, as numbers would be read as ranks."""
    before, last = divmod(index, len(ascii_uppercase))
    return (letter(before - 1) if before else "") + ascii_uppercase[last]


def plots(section: Section) -> list[Plot]:
    """The Pareto plot for every choice of axes."""
    across, up = axes(section)
    spelling = Spelling(section.figures)
    made = []
    for y_name in up:
        for x_name in across:
            # Letters and colours are those of the list beside the plot, also where a row lacks a figure.
            rows = [
                (index, row)
                for index, row in enumerate(section.rows)
                if x_name in row.figures and y_name in row.figures
            ]
            if x_name == y_name or not rows:
                continue
            points = [
                Point(row.label, row.figures[x_name].mean, row.figures[y_name].mean, index, label=letter(index))
                for index, row in rows
            ]
            names = spelling.name(x_name), spelling.name(y_name)
            x_sign = -1 if section.figure(x_name).better == "lower" else 1
            y_sign = -1 if section.figure(y_name).better == "lower" else 1
            made.append(Plot(x_name, y_name, scatter(points, *names, x_sign, y_sign)))
    return made


def categories(section: Section, figure: str) -> list[str]:
    """Categories in which any row has this figure."""
    return list(
        dict.fromkeys(name for row in section.rows if figure in row.figures for name in row.figures[figure].by_category)
    )


def clear_best(section: Section, figure: str, category: str) -> str:
    """Label of the row whose interval in a category lies beyond all others' on the better side; empty where none is."""
    better = section.figure(figure).better
    ends = {
        row.label: row.figures[figure].by_category[category][1:]
        for row in section.rows
        if figure in row.figures and category in row.figures[figure].by_category
    }
    for label, (low, high) in ends.items():
        others = [interval for other, interval in ends.items() if other != label]
        beyond = all(high < interval[0] if better == "lower" else low > interval[1] for interval in others)
        if better and low < high and others and beyond:
            return label
    return ""


def picture_rows(section: Section) -> list[tuple[str, int, list[Picture | None]]]:
    """Prompt, seed, and each row's picture of it, for every prompt that at least one row shows."""
    # Of two pictures of one prompt and seed a row shows the first.
    by_row = [{(picture.prompt, picture.seed): picture for picture in reversed(row.pictures)} for row in section.rows]
    keys = dict.fromkeys((picture.prompt, picture.seed) for row in section.rows for picture in row.pictures)
    lines = []
    for prompt, seed in keys:
        shown = [pictures.get((prompt, seed)) for pictures in by_row]
        lines.append(
            (prompt, seed, [picture if picture and PICTURE.fullmatch(picture.data) else None for picture in shown])
        )
    return lines


def pairs_by_figure(section: Section) -> dict[str, list[Comparison]]:
    """All tests, by the figure that they are of."""
    pairs: dict[str, list[Comparison]] = defaultdict(list)
    for pair in section.pairs:
        pairs[pair.figure].append(pair)
    return pairs


def pair_text(pair: Comparison) -> str:
    """Who is better, or why nobody is."""
    return pair.verdict()


def reproduce(row: Row, spelling: Spelling) -> list[tuple[str, str]]:
    """Everything that is needed to make a row again, as names and texts; figures have the page's names, and the
    command beside them those that were typed."""
    subject, protocol = row.subject, row.protocol
    versions = ", ".join(f"{spelling.name(key)} {value}" for key, value in protocol.versions.items())
    facts = [
        ("made by", subject.name),
        ("settings", ", ".join(f"{name} {value}" for name, value in subject.settings.items())),
        ("trained on", ", ".join(map(spelling.name, subject.trained_on))),
        ("started from", subject.started_from),
        ("compared with", row.baseline),
        ("fingerprint of weights and sampler", subject.fingerprint),
        ("prompts", f"{protocol.prompts}, {protocol.count}, SHA-256 {protocol.digest}"),
        ("seeds", ", ".join(map(str, protocol.seeds))),
        ("image size", f"{protocol.size[0]} x {protocol.size[1]}"),
        ("versions of rewards and metrics", versions),
        *((name, value) for name, value in row.environment.items()),
    ]
    return [(name, value) for name, value in facts if value]


def render(board: Board, title: str, votes: VoteBoard | None = None) -> str:
    """The page as text; `votes` is its part that people made."""
    return template(__package__, "leaderboard.html.jinja").render(
        title=title,
        board=board,
        votes=votes,
        percent=percent,
        percents=percents,
        by_source=by_source,
        spelling_of=lambda section: Spelling(
            [*section.figures, *(name for row in section.rows for name in row.subject.trained_on)]
        ),
        counted_prompts=counted_prompts,
        number_text=number_text,
        letter=letter,
        mean_text=mean_text,
        interval_text=interval_text,
        arrow=arrow,
        p_text=p_text,
        plots=plots,
        axes=axes,
        categories=categories,
        clear_best=clear_best,
        least_effect=f"{LEAST_EFFECT:g}",
        p_level=f"{LEVEL:g}",
        picture_rows=picture_rows,
        pair_text=pair_text,
        pairs_by_figure=pairs_by_figure,
        agreements=agreements,
        reproduce=reproduce,
        pixel_art=PIXEL_ART,
    )


def write_page(board: Board, path: Path, title: str = "Leaderboard", votes: VoteBoard | None = None) -> Path:
    """Write the page; returns its path.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render(board, title, votes))
    return path
