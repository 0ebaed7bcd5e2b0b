"""The page of an ablation: what the papers say and what was seen, heat maps, Pareto fronts, pictures, the best cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from ...evaluation.intervals import LEAST_EFFECT
from ...prompts.subsets import counted_prompts
from ...report.charts.scatter import Point, scatter
from ...report.templates import template
from ...utils.atomic import write_text
from ...utils.messages import Spelling, number_text
from .best_cell import Choice
from .differences import difference
from .results import Combination, Study
from .trends import Change, changes, claims, ordered

if TYPE_CHECKING:
    from .settings import AblationSettings

PAGE = "ablation.html"
PIXEL_ART = 128
FRONTS = 4
"""Most Pareto plots shown."""
DIGITS = "#.3g"
"""Three significant digits, zeros at the end too: numbers of one map are as long as each other."""


@dataclass(frozen=True)
class HeatCell:
    """One cell of a heat map: its text, and how good it is from 0 to 1 among the map's; a half in all of a map without
    measurable differences."""

    text: str
    spread: str
    share: float
    warned: str = ""


@dataclass(frozen=True)
class HeatMap:
    """A figure over two settings, or over one."""

    figure: str
    better: str
    role: str
    down: str
    across: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[HeatCell | None]]]
    averaged: str
    level: bool = False
    """Whether no two cells differ measurably, so that colours say nothing."""


def heat_maps(study: Study) -> list[HeatMap]:
    """One for each figure; settings after the first two are averaged over, and the map says so."""
    names = list(study.settings)
    down, across = (names[0], names[1]) if len(names) > 1 else ("", names[0] if names else "")
    rest = names[2:]
    maps = []
    for figure in study.figures("reward", "judge", "metric"):
        groups: dict[tuple[str, str], list[Combination]] = {}
        for combination in study.combinations:
            if figure in combination.figures:
                groups.setdefault((combination.values.get(down, ""), combination.values.get(across, "")), []).append(
                    combination
                )
        means = {
            at: sum(combination.figures[figure].mean for combination in members) / len(members)
            for at, members in groups.items()
        }
        better = study.figure(figure).better
        columns = ordered(study.settings.get(across, ("",)))
        level = not _differ(study, groups, means, figure)
        rows = []
        for value in ordered(study.settings.get(down, ("",))):
            cells = [
                _heat_cell(groups.get((value, other)), figure, means, (value, other), better, level)
                for other in columns
            ]
            rows.append((value, cells))
        note = f"averaged over {' and '.join(rest)}" if rest else ""
        maps.append(HeatMap(figure, better, study.figure(figure).role, down, across, columns, rows, note, level))
    return maps


def _differ(
    study: Study,
    groups: Mapping[tuple[str, str], Sequence[Combination]],
    means: Mapping[tuple[str, str], float],
    figure: str,
) -> bool:
    """Whether the lowest and the highest cell differ measurably, at a level for all pairs of cells (Bonferroni): the
    two were picked because they lie furthest apart."""
    if len(groups) < 2:
        return False
    low, high = min(means, key=lambda at: means[at]), max(means, key=lambda at: means[at])
    level = 1 - 0.05 / math.comb(len(groups), 2)
    return low != high and difference(study, groups[low], groups[high], figure, level).measurable


def _heat_cell(
    members: Sequence[Combination] | None,
    figure: str,
    means: Mapping[tuple[str, str], float],
    at: tuple[str, str],
    better: str,
    level: bool,
) -> HeatCell | None:
    if not members:
        return None
    low, high = min(means.values()), max(means.values())
    share = (means[at] - low) / (high - low) if high > low and not level else 0.5
    spread = ""
    if len(members) == 1:
        figure_spread = members[0].figures[figure]
        spread = f"{number_text(figure_spread.low, DIGITS)} to {number_text(figure_spread.high, DIGITS)}"
    warned = ", ".join(dict.fromkeys(name for combination in members for name in combination.warnings))
    return HeatCell(number_text(means[at], DIGITS), spread, 1 - share if better == "lower" else share, warned)


@dataclass(frozen=True)
class Front:
    """One Pareto plot and what its colours mean."""

    title: str
    chart: Markup
    legend: Sequence[tuple[str, str]]


def fronts(study: Study) -> list[Front]:
    """Every reward and judge against fidelity, or where none was measured the rewards against the first judge."""
    rewards = study.rewards()
    against = study.fidelity()[:1] or study.figures("judge")[:1]
    if not against:
        return []
    x_name, spelling = against[0], spelling_of(study)
    x_sign = -1 if study.figure(x_name).better == "lower" else 1
    setting = next(iter(study.settings), "")
    values = ordered(study.settings.get(setting, ()))
    made = []
    for y_name in [name for name in rewards if name != x_name][:FRONTS]:
        points = [
            Point(
                spelling.text(combination.label),
                combination.figures[x_name].mean,
                combination.figures[y_name].mean,
                values.index(combination.values[setting]) if setting else 0,
            )
            for combination in study.combinations
            if x_name in combination.figures and y_name in combination.figures
        ]
        points += [
            Point(row.label, row.figures[x_name].mean, row.figures[y_name].mean, mark=row.label)
            for row in study.others
            if x_name in row.figures and y_name in row.figures
        ]
        legend = (
            [(f"s{index % 6}", spelling.text(f"{setting} {value}")) for index, value in enumerate(values)]
            if setting
            else []
        )
        x_shown, y_shown = spelling.name(x_name), spelling.name(y_name)
        made.append(Front(f"{y_shown} against {x_shown}", scatter(points, x_shown, y_shown, x_sign, 1), legend))
    return made


def spelling_of(study: Study) -> Spelling:
    """How the page spells names: those of figures, and of rewards where these are what varies."""
    rewards = [part.partition("=")[0] for value in study.settings.get("rewards", ()) for part in value.split(",")]
    return Spelling([*study.figures(), *rewards])


def change_text(change: Change) -> str:
    """`0 to 20: +1.2 (0.8 to 1.6), rises`."""
    interval = (
        f" ({number_text(change.low, DIGITS)} to {number_text(change.high, DIGITS)})"
        if math.isfinite(change.low)
        else ""
    )
    sign = "+" if change.mean >= 0 else ""
    return f"{change.start} to {change.end}: {sign}{number_text(change.mean, DIGITS)}{interval}, {change.verdict()}"


def render(settings: AblationSettings, study: Study, choice: Choice, failed: Mapping[str, str]) -> str:
    """The page as text."""
    trends = {name: changes(study, name) for name, values in study.settings.items() if len(values) > 1}
    any_row = study.rows[0]
    seeds = sorted({cell.values["seed"] for cell, _ in study.cells.values() if "seed" in cell.values})
    return template(__package__, "ablation.html.jinja").render(
        study=study,
        spelling=spelling_of(study),
        counted_prompts=counted_prompts,
        varied=" and ".join(study.settings) or "seed",
        claims=claims(study),
        choice=choice,
        least_effect=f"{LEAST_EFFECT:g}",
        maps=heat_maps(study),
        fronts=fronts(study),
        trends={
            setting: {figure: [change_text(change) for change in steps] for figure, steps in figures.items() if steps}
            for setting, figures in trends.items()
        },
        failed=failed,
        seeds=seeds,
        protocol=any_row.protocol,
        environment=any_row.environment,
        pixelated=max(any_row.protocol.size) <= PIXEL_ART,
        command=settings.command,
        base={name: value for name, value in settings.base.model_dump(mode="json").items()
              if name in settings.base.model_fields_set},
    )  # fmt: skip


def write_page(settings: AblationSettings, study: Study, choice: Choice, failed: Mapping[str, str]) -> Path:
    """Write `ablation.html` into the ablation's folder; returns its path."""
    path = settings.out / PAGE
    write_text(path, render(settings, study, choice, failed))
    return path
