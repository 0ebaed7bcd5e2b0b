"""The rows of a report's table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config import TrainConfig
from ..evaluation.intervals import Interval
from .charts.formatting import change_text, decimals_for, range_text, text_of, weight_text
from .run_files import RunFiles

Scores = Mapping[str, Interval]


def interval_of(values: Any) -> Interval | None:
    """An `Interval` from `summary.json`, None where it is missing or not finite."""
    try:
        interval = Interval(float(values["mean"]), float(values["low"]), float(values["high"]))
    except (KeyError, TypeError, ValueError):
        return None
    return interval if all(map(math.isfinite, (interval.mean, interval.low, interval.high))) else None


def scores_of(values: Mapping[str, Any]) -> dict[str, Interval]:
    """Intervals by column, whatever else the mapping holds."""
    intervals = {name: interval_of(score) for name, score in values.items()}
    return {name: interval for name, interval in intervals.items() if interval is not None}


def effect_of(run: RunFiles, name: str) -> float | None:
    """A score's change in standard deviations over prompts; None where the run does not say it.

    Runs of before it was measured have it from their intervals, whose half-width is about 1.96 standard errors.
    """
    gain = (run.summary.get("gain") or {}).get(name)
    if isinstance(gain, Mapping) and "effect" in gain:
        return finite(gain["effect"])
    judge = run.summary.get("judge") or {}
    scores = scores_of(judge if judge.get("name") == name else (run.summary.get("rewards") or {}).get(name) or {})
    before, after, count = scores.get("before"), scores.get("after"), run.comparison and len(run.comparison.prompts)
    if before is None or after is None or not count:
        return None
    widths = [(column.high - column.low) / 2 / 1.96 * math.sqrt(count) for column in (before, after)]
    spread = math.sqrt(sum(width**2 for width in widths) / 2)
    return (after.mean - before.mean) / spread if spread else None


def finite(value: Any) -> float | None:
    """A finite number, or None."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


@dataclass(frozen=True)
class Cell:
    """One table cell: a value, and its interval below."""

    value: str = "\N{EN DASH}"
    detail: str = ""


@dataclass(frozen=True)
class Row:
    """One table row: what it is about, a cell for each column, the change, and the intervals for the little plot."""

    name: str
    role: str
    cells: Mapping[str, Cell]
    change: Cell
    scores: Scores = field(default_factory=dict)


def _score_row(
    name: str, role: str, scores: Scores, gain: Interval | None, effect: float | None, columns: Sequence[str]
) -> Row:
    decimals = decimals_for(scores.values())
    cells = {
        column: Cell(text_of(scores[column].mean, decimals), range_text(scores[column], decimals))
        if column in scores
        else Cell()
        for column in columns
    }
    # Where there is little room, the line ends before the size and not inside the interval.
    parts = [range_text(gain, decimals_for([gain]), True).replace(", ", ",\N{NO-BREAK SPACE}")] if gain else []
    parts += [f"size\N{NO-BREAK SPACE}{text_of(effect, 2, True)}"] if effect is not None else []
    change = Cell(change_text(gain), ", ".join(filter(None, parts))) if gain else Cell()
    return Row(name, role, cells, change, scores)


def _plain_row(name: str, role: str, values: Mapping[str, Any], columns: Sequence[str]) -> Row | None:
    numbers = {column: value for column in columns if (value := finite(values.get(column))) is not None}
    if not numbers:
        return None
    decimals = decimals_for(Interval(value, value, value) for value in numbers.values())
    cells = {column: Cell(text_of(numbers[column], decimals)) if column in numbers else Cell() for column in columns}
    change = Cell()
    if numbers.get("before", 0.0) > 0 and numbers.get("after", -1.0) >= 0:
        change = Cell(
            f"{numbers['after'] / numbers['before']:.2f}\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}", "the start"
        )
    return Row(name, role, cells, change)


def _role_of(name: str, config: TrainConfig) -> str:
    parts = [f"weight {weight_text(config.rewards[name])}"] if name in config.rewards else []
    parts += [f"floor {weight_text(config.floors[name])}"] if name in config.floors else []
    return f"reward, {', '.join(parts) or 'only measured'}"


def table_rows(run: RunFiles, columns: Sequence[str]) -> list[Row]:
    """Trained rewards first, then rewards that were only measured, the judge, diversity and divergence."""
    summary, weights = run.summary, run.config.rewards
    gains = scores_of(summary.get("gain") or {})
    rows: list[Row | None] = []
    rewards = summary.get("rewards") or {}
    for name in sorted(rewards, key=lambda name: name not in weights):
        role = _role_of(name, run.config)
        scores, effect = scores_of(rewards[name]), effect_of(run, name)
        rows.append(_score_row(run.spelling.name(name), role, scores, gains.get(name), effect, columns))
    judge = summary.get("judge")
    if judge:
        name = judge["name"]
        role = "judge, never trained on" if name not in weights else "judge, also trained on"
        shown, effect = run.spelling.name(name), effect_of(run, name)
        rows.append(_score_row(shown, role, scores_of(judge), gains.get(name), effect, columns))
    rows.append(_plain_row("diversity", "between noises", summary.get("diversity") or {}, columns))
    rows.append(_plain_row("divergence", "to the reference", summary.get("divergence") or {}, columns))
    return [row for row in rows if row is not None]
