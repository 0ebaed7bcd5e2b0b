"""How the run went: the monitors' looks and the diagnoses, as charts over steps with their warnings in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..monitoring.diagnostic import all_diagnostics
from ..monitoring.diversity_collapse import KEPT
from ..monitoring.history import COLOURS
from .charts.lines import Series
from .curves import Curve, curve
from .run_files import RunFiles
from .table import finite

Row = Mapping[str, Any]
"""A line of `monitors.jsonl`."""


def _series(rows: Sequence[Row], name: str, value_of: Callable[[Row], Any]) -> Series | None:
    """A line over the looks that have a number there."""
    points = []
    for row in rows:
        try:
            value = finite(value_of(row))
        except (KeyError, TypeError):
            continue
        if value is not None:
            points.append((row["step"], value))
    return Series(name, [step for step, _ in points], [value for _, value in points]) if points else None


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.get("rewards") or {}))


def monitor_curves(run: RunFiles) -> list[Curve]:
    """Trained rewards beside judges, diversity and colours, on held-out prompts."""
    rows, trained = run.monitors, {*run.config.rewards, *run.config.floors}
    names = sorted(_names(rows), key=lambda name: name not in trained)
    rewards = [
        _series(
            rows,
            f"{run.spelling.name(name)}{'' if name in trained else ' (judge)'}",
            lambda row, name=name: row["rewards"][name]["deviations"],  # type: ignore[misc]
        )
        for name in names
    ]
    charts = [
        curve(
            "Rewards and judges",
            rewards,
            "Change of each score's mean from the start, in standard deviations of that score over the prompts at the "
            "start, so that scores of different scales share an axis.",
            "Judges rise with the trained rewards, or stay. A judge that falls while a trained reward rises is "
            "over-optimisation.",
            include=(0.0,),
        ),
        curve(
            "Diversity",
            [_series(rows, "share of the start", lambda row: row["diversity"]["share"])],
            "Difference between two noises' images of one prompt, as a share of the start's.",
            f"Stays near 1. Below {KEPT:g}, its whole interval, it is a collapse.",
            include=(KEPT, 1.0),
        ),
        curve(
            "Colour",
            [_series(rows, name, lambda row, name=name: row[name]["mean"]) for name in COLOURS],  # type: ignore[misc]
            "Mean saturation, contrast (standard deviation of luma) and share of pixels at an end of the range.",
            "Flat. A rise above both the start and the reference is over-saturation.",
        ),
    ]
    return [chart for chart in charts if chart is not None]


def monitor_warnings(run: RunFiles) -> list[tuple[int, str]]:
    """Step and sentence of every warning, in order."""
    return [
        (int(row["step"]), run.spelling.text(str(warning.get("text", ""))))
        for row in run.monitors
        for warning in row.get("warnings") or []
    ]


@dataclass(frozen=True)
class Diagnosed:
    """One diagnostic: its chart, its numbers at the end and at the start in words, and its warning or nothing."""

    curve: Curve
    now: str
    warning: str = ""


def diagnosed_of(run: RunFiles) -> list[Diagnosed]:
    """Every diagnostic that the run has numbers of."""
    rows = run.diagnostics
    warnings = (rows[-1].get("warnings") or []) if rows else []
    texts = {warning.get("name"): run.spelling.text(str(warning.get("text", ""))) for warning in warnings}
    shown = []
    for diagnostic in all_diagnostics():
        lines = diagnostic.lines(rows)
        chart = curve(
            diagnostic.title,
            [Series(*line) for line in lines],
            diagnostic.reading,
            diagnostic.healthy,
            include=diagnostic.include,
            log=diagnostic.log,
            axis=diagnostic.axis,
        )
        if chart is not None:
            shown.append(Diagnosed(chart, diagnostic.now(lines), texts.get(diagnostic.name, "")))
    return shown


def left_out(run: RunFiles) -> list[str]:
    """Why a diagnostic has no chart, as sentences."""
    rows = run.diagnostics
    return [
        diagnostic.absence
        for diagnostic in all_diagnostics()
        if diagnostic.absence and len(rows) >= diagnostic.needs and not diagnostic.lines(rows)
    ]


def diagnoses_with_warnings(run: RunFiles) -> int:
    """How many diagnoses raised a warning."""
    return sum(bool(row.get("warnings")) for row in run.diagnostics)
