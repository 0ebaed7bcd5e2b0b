"""Small line charts and interval plots as inline SVG.

Lines take their colours from CSS classes (`s0`, `s1`, ...) and texts from `currentColor`, so that a chart follows the
page's light or dark theme, and weighs a few kilobytes. Sizes are chosen for 340 to 400 pixels of width, where a text of
12 units reads as 12 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup, escape

from ...evaluation.intervals import Interval
from .formatting import axis_text, text_of

WIDTH, HEIGHT = 380.0, 216.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 10.0, 12.0, 36.0
MOST_POINTS = 240
SERIES_COLOURS = 6


@dataclass(frozen=True)
class Series:
    """One line: its name, and a value at each of its steps."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels, linearly or by their logarithm, and knows its ticks."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        value = min(max(value, low), high)
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int = 5, least: float = 0.0) -> list[tuple[float, str]]:
        """Positions and texts of round values inside the axis, at least `least` apart."""
        values = log_ticks(self.low, self.high) if self.log else nice_ticks(self.low, self.high, most, least)
        return [(self(value), text) for value, text in zip(values, tick_texts(values, self.log), strict=True)]


def colour_class(index: int) -> str:
    """CSS classes of the line with this index; where colours come round again, the line is dashed."""
    return f"s{index % SERIES_COLOURS}" + (" dashed" if index >= SERIES_COLOURS else "")


def nice_ticks(low: float, high: float, most: int = 5, least: float = 0.0) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within `[low, high]`, at least `least` apart.

    There are as many as can be, up to `most` + 1."""
    power = 10.0 ** math.floor(math.log10((high - low) / (most + 1)))
    for step in (factor * power for factor in (1, 2, 5, 10, 20)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first <= most and step >= least:
            break
    return [index * step for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within `[low, high]`, with their 2- and 5-fold where there are few."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if math.log10(high / low) > 2.5 else (1, 2, 5)
    ticks = [factor * 10.0**exponent for exponent in exponents for factor in factors]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside[:: max(1, math.ceil(len(inside) / 6))]


def tick_texts(values: Sequence[float], log: bool = False) -> list[str]:
    """Ticks as short texts, all with the decimals the finest needs."""
    if not values:
        return []
    if log or max(map(abs, values)) >= 1e5 or 0 < max(map(abs, values)) < 1e-3:
        return [axis_text(value) for value in values]
    step = min((b - a for a, b in pairwise(values)), default=abs(values[0]) or 1.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [text_of(value, decimals) for value in values]


def smooth(values: Sequence[float], share: float = 0.06) -> np.ndarray:
    """Centred running mean over about `share` of the run, narrower at both ends, so that these are not bent inwards."""
    array = np.asarray(values, np.float64)
    half = max(1, round(len(array) * share / 2)) if len(array) > 8 else 0
    sums = np.concatenate([[0.0], np.cumsum(array)])
    index = np.arange(len(array))
    reach = np.minimum(half, np.minimum(index, len(array) - 1 - index)) if half else np.zeros_like(index)
    # The very ends would be single noisy values; a third of the window is kept there, one-sided.
    low = np.maximum(0, index - np.maximum(reach, half // 3))
    high = np.minimum(len(array), index + np.maximum(reach, half // 3) + 1)
    return (sums[high] - sums[low]) / (high - low)


def value_range(series: Sequence[Series], include: Sequence[float] = (), log: bool = False) -> tuple[float, float]:
    """An axis range that holds every smoothed line and all but the rarest raw values."""
    ends: list[float] = [*include]
    for line in series:
        ends += np.quantile(np.asarray(line.values), [0.01, 0.99]).tolist()
        ends += [float(smooth(line.values).min()), float(smooth(line.values).max())]
    if log:
        ends = [end for end in ends if end > 0]
        return min(ends) / 1.15, max(ends) * 1.15
    low, high = min(ends), max(ends)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    if low == high:
        return low - margin, high + margin
    return low - margin * (low not in include), high + margin * (high not in include)


def _points(steps: Sequence[float], values: Sequence[float] | np.ndarray, x: Axis, y: Axis) -> str:
    stride = max(1, math.ceil(len(steps) / MOST_POINTS))
    rows = sorted({*range(0, len(steps), stride), len(steps) - 1})
    return " ".join(f"{x(steps[row]):.1f},{y(float(values[row])):.1f}" for row in rows)


def line_chart(
    series: Sequence[Series], label: str, include: Sequence[float] = (), log: bool = False, axis: str = "step"
) -> Markup:
    """Lines over steps, or over something else: the raw values faint, a running mean in front.

    Args:
        series: at least one line, each with at least one value.
        label: says in words what the chart shows.
        include: values the axis must reach; a line is drawn at 0 where the axis holds it.
        log: a logarithmic axis; every value must be positive.
        axis: what the lines run over.
    """
    last = max(line.steps[-1] for line in series)
    first = min(line.steps[0] for line in series)
    x = Axis(first, last if last > first else first + 1, LEFT, WIDTH - RIGHT)
    y = Axis(*value_range(series, include, log), HEIGHT - BOTTOM, TOP, log)
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(label)}">']
    for position, text in y.ticks():
        parts.append(
            f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{position:.1f}" y2="{position:.1f}"/>'
        )
        parts.append(f'<text x="{LEFT - 7:g}" y="{position + 4:.1f}" text-anchor="end">{text}</text>')
    if not log and y.low < 0 < y.high:
        parts.append(f'<line class="zero" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y(0.0):.1f}" y2="{y(0.0):.1f}"/>')
    whole = all(float(step).is_integer() for line in series for step in line.steps)
    for position, text in x.ticks(4, least=1.0 if whole else 0.0):
        anchor = "end" if position > WIDTH - RIGHT - 12 else "middle"
        parts.append(f'<text x="{position:.1f}" y="{HEIGHT - BOTTOM + 17:g}" text-anchor="{anchor}">{text}</text>')
    parts.append(
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2:g}" y="{HEIGHT - 3:g}" text-anchor="middle">{escape(axis)}'
        "</text>"
    )
    for index, line in enumerate(series):
        colour = colour_class(index)
        parts.append(f'<polyline class="raw {colour}" points="{_points(line.steps, line.values, x, y)}"/>')
    for index, line in enumerate(series):
        colour = colour_class(index)
        if len(line.steps) == 1:
            parts.append(
                f'<circle class="dot {colour}" cx="{x(line.steps[0]):.1f}" cy="{y(line.values[0]):.1f}" r="3"/>'
            )
        else:
            parts.append(f'<polyline class="line {colour}" points="{_points(line.steps, smooth(line.values), x, y)}"/>')
    return Markup("".join([*parts, "</svg>"]))


def interval_plot(scores: Mapping[str, Interval], columns: Sequence[str], label: str) -> Markup:
    """Means and intervals of one score, a line a column, on one scale; colours by the classes `c-<column>`."""
    shown = [column for column in columns if column in scores]
    if not shown:
        return Markup("")
    width, pitch, margin = 180.0, 15.0, 8.0
    low, high = min(scores[column].low for column in shown), max(scores[column].high for column in shown)
    axis = Axis(low, high if high > low else low + 1, margin, width - margin)
    height = pitch * len(shown)
    parts = [f'<svg class="intervals" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">']
    for row, column in enumerate(shown):
        interval, y = scores[column], pitch * (row + 0.5)
        parts.append(f'<g class="c-{escape(column)}"><title>{escape(column)}</title>')
        parts.append(f'<line class="track" x1="{margin:g}" x2="{width - margin:g}" y1="{y}" y2="{y}"/>')
        parts.append(
            f'<line class="whisker" x1="{axis(interval.low):.1f}" x2="{axis(interval.high):.1f}" y1="{y}" y2="{y}"/>'
        )
        parts.append(f'<circle cx="{axis(interval.mean):.1f}" cy="{y}" r="4"/></g>')
    return Markup("".join([*parts, "</svg>"]))
