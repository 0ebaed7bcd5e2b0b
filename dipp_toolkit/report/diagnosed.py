"""How the run went: a chart for each diagnostic, how to read it, and a warning where it has left its healthy range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..monitoring import agreement, divergence, lag, pull, sample_colours
from ..monitoring.diagnostic_names import COLOUR, FAR, LAG, OPPOSED, PULL
from ..monitoring.over_saturation import WORDS
from ..monitoring.ranges import numbers
from ..utils.messages import number_text
from .charts.lines import Series
from .curves import Curve, curve
from .run_files import RunFiles
from .table import finite, text_of

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Diagnosed:
    """One diagnostic: its chart, its numbers at the end and at the start in words, and its warning or nothing."""

    curve: Curve
    now: str
    warning: str = ""


def _series(rows: Sequence[Row], name: str, *path: str) -> Series | None:
    found = numbers(rows, *path)
    return Series(name, [step for step, _ in found], [value for _, value in found]) if found else None


def _now(series: Sequence[Series | None], named: bool = False) -> str:
    """`"0.04 at step 40, from 0.03 at step 0."`"""
    parts = []
    for one in series:
        if one is None:
            continue
        last, first = (_short(one.values[at]) for at in (-1, 0))
        start = f", from {first} at step {one.steps[0]:g}" if len(one.values) > 1 else ""
        parts.append(f"{one.name + ' ' if named else ''}{last} at step {one.steps[-1]:g}{start}")
    return "; ".join(parts) + "."


def _short(value: float) -> str:
    """Three digits, as people write them."""
    if abs(value) >= 1000:
        return text_of(value, 0)
    return number_text(value)


def _by_time(rows: Sequence[Row]) -> Diagnosed | None:
    """KL at each time, in the first diagnosis and in the last."""
    seen = []
    for row in rows:
        found = row.get("divergence") or {}
        times, values = ([finite(one) for one in found.get(name) or []] for name in ("times", "by_time"))
        if times and len(times) == len(values) and None not in [*times, *values]:
            seen.append(Series(f"step {row['step']}", times, values))  # type: ignore[arg-type]
    shown = [seen[0], seen[-1]] if len(seen) > 1 else seen
    drawn = curve(
        "Distance by time",
        shown,
        "KL divergence in nats between generator and reference after noise has been added up to each time, 0 the "
        "clean image and 1 the noisiest: right of the middle is what images show at large, at the left their details.",
        "The line keeps its shape while it rises or falls. Where only the right end rises, the generator shows "
        "something else than the reference; where only the left does, it draws the same differently.",
        log=True,
        axis="time",
    )
    if drawn is None:
        return None
    last = shown[-1]
    ends = [f"{_short(float(last.values[at]))} nats at time {last.steps[at]:.2g}" for at in (0, -1)]
    return Diagnosed(drawn, ", ".join(ends) + ".")


def diagnosed_of(run: RunFiles) -> list[Diagnosed]:
    """Every diagnostic that the run has numbers of."""
    rows = run.diagnostics
    warnings = (rows[-1].get("warnings") or []) if rows else []
    warned = {one.get("name"): run.spelling.text(str(one.get("text", ""))) for one in warnings}
    far = _series(rows, "distance", "divergence", "per_dimension")
    lagging = _series(rows, "lag", "lag")
    ratio, cosine = _series(rows, "ratio", "pull", "ratio"), _series(rows, "cosine", "pull", "cosine")
    colours = [_series(rows, WORDS[name], "colours", name) for name in WORDS]
    shown: list[tuple[str, Curve | None, str]] = [
        (
            FAR,
            curve("Distance to the reference", [far], divergence.READING, divergence.HEALTHY, include=(0.0,)),
            _now([far]),
        ),
        (LAG, curve("The assistant's lag", [lagging], lag.READING, lag.HEALTHY, include=(0.0,)), _now([lagging])),
        (PULL, curve("Rewards over divergence", [ratio], pull.READING, pull.HEALTHY, log=True), _now([ratio])),
        (
            OPPOSED,
            curve("Rewards with divergence", [cosine], agreement.READING, agreement.HEALTHY, include=(0.0,)),
            _now([cosine]),
        ),
        (
            COLOUR,
            curve("Colours of training samples", colours, sample_colours.READING, sample_colours.HEALTHY),
            _now(colours, named=True),
        ),
    ]
    found = [Diagnosed(drawn, now, warned.get(name, "")) for name, drawn, now in shown if drawn is not None]
    by_time = _by_time(rows)
    return [*found[:1], by_time, *found[1:]] if by_time is not None else found


def left_out(run: RunFiles) -> list[str]:
    """Why a diagnostic has no chart, as sentences."""
    rows, sentences = run.diagnostics, []
    if rows and not numbers(rows, "divergence", "nats"):
        sentences.append(
            "The assistant was not trained in this run, because no term looks at it or assistant_rounds is 0: there is "
            "no distance to the reference and no lag to show."
        )
    if rows[1:] and not numbers(rows, "pull", "ratio"):
        sentences.append(
            "Rewards and a divergence did not both pull as terms of their own, so there is nothing to compare between "
            "them."
        )
    return sentences


def diagnoses_with_warnings(run: RunFiles) -> int:
    """How many diagnoses raised a warning."""
    return sum(bool(row.get("warnings")) for row in run.diagnostics)
