"""Scatter plots with a Pareto front as inline SVG, in the style of `chart`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from ...utils.messages import number_text
from .label_placement import Box, place
from .lines import Axis, colour_class

WIDTH, HEIGHT = 380.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 12.0, 40.0
RADIUS = 5.0
LETTER, LINE = 7.0, 13.0
"""Width of a letter and height of a line of labels."""
NEAR = 16.0
"""Distance from which a label has a line to its point."""


@dataclass(frozen=True)
class Point:
    """A point.

    Attributes:
        name: shown when it is pointed at.
        colour: number of its colour.
        mark: where there is one, the point is a square with this text beside it, and not part of the front.
        label: a short text beside the point.
    """

    name: str
    x: float
    y: float
    colour: int = 0
    mark: str = ""
    label: str = ""


def pareto_front(points: Sequence[Point], x_sign: int, y_sign: int) -> list[Point]:
    """The points that no other one equals or betters in both directions while bettering it in one, by x.

    Args:
        points: any.
        x_sign: 1 where more x is better, -1 where less is.
        y_sign: the same for y.
    """

    def beaten(point: Point) -> bool:
        a = (x_sign * point.x, y_sign * point.y)
        others = [(x_sign * other.x, y_sign * other.y) for other in points]
        return any(b[0] >= a[0] and b[1] >= a[1] and b != a for b in others)

    return sorted((point for point in points if not beaten(point)), key=lambda point: (point.x, point.y))


def _axis(values: Sequence[float], start: float, end: float) -> Axis:
    low, high = min(values), max(values)
    margin = 0.07 * (high - low) or 0.05 * abs(high) or 0.5
    return Axis(low - margin, high + margin, start, end)


def scatter(points: Sequence[Point], x_name: str, y_name: str, x_sign: int, y_sign: int) -> Markup:
    """Points and the Pareto front among those without a mark.

    Args:
        points: at least one.
        x_name: of the horizontal axis.
        y_name: of the vertical axis.
        x_sign: 1 where more x is better, -1 where less is.
        y_sign: the same for y.
    """
    x = _axis([point.x for point in points], LEFT, WIDTH - RIGHT)
    y = _axis([point.y for point in points], HEIGHT - BOTTOM, TOP)
    label = f"{y_name} against {x_name}"
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(label)}">']
    for position, text in y.ticks():
        ends = f'x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{position:.1f}" y2="{position:.1f}"'
        parts.append(f'<line class="grid" {ends}/>')
        parts.append(f'<text x="{LEFT - 7:g}" y="{position + 4:.1f}" text-anchor="end">{text}</text>')
    for position, text in x.ticks(4):
        parts.append(f'<text x="{position:.1f}" y="{HEIGHT - BOTTOM + 17:g}" text-anchor="middle">{text}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle:g}" y="{HEIGHT - 4:g}" text-anchor="middle">{escape(x_name)}</text>')
    front = pareto_front([point for point in points if not point.mark], x_sign, y_sign)
    if len(front) > 1:
        line = " ".join(f"{x(point.x):.1f},{y(point.y):.1f}" for point in front)
        parts.append(f'<polyline class="front" points="{line}"/>')
    spots = [Box(x(point.x), y(point.y), 2 * RADIUS + 3, 2 * RADIUS + 3) for point in points]
    labels: list[Box] = []
    for point, spot in zip(points, spots, strict=True):
        place_words = f"{escape(x_name)} {number_text(point.x, '.4g')}, {escape(y_name)} {number_text(point.y, '.4g')}"
        title = f"<title>{escape(point.name)}: {place_words}</title>"
        parts.append(f"<g>{_shape(point, spot, point in front)}{title}</g>")
    for point, spot in zip(points, spots, strict=True):
        text = point.mark or point.label
        if text:
            size = (LETTER * len(text) + 4, LINE)
            labels.append(place((spot.x, spot.y), size, [*spots, *labels], (LEFT, TOP, WIDTH, HEIGHT - BOTTOM)))
            parts.append(_label(text, spot, labels[-1], point))
    return Markup("".join([*parts, "</svg>"]))


def _shape(point: Point, spot: Box, on_front: bool) -> str:
    if point.mark:
        return f'<rect class="mark" x="{spot.x - 4:.1f}" y="{spot.y - 4:.1f}" width="8" height="8"/>'
    ring = " on-front" if on_front else ""
    place_text = f'cx="{spot.x:.1f}" cy="{spot.y:.1f}" r="{RADIUS:g}"'
    return f'<circle class="dot {colour_class(point.colour)}{ring}" {place_text}/>'


def _label(text: str, spot: Box, label: Box, point: Point) -> str:
    """The label, and a line to its point where it had to go further away."""
    across, down = label.x - spot.x, label.y - spot.y
    leader = ""
    if math.hypot(across, down) > NEAR + label.width / 2:
        # Up to the label's edge, not through its letters.
        share = 1 - min(label.width / 2 / max(abs(across), 1e-9), label.height / 2 / max(abs(down), 1e-9), 1.0)
        end_x, end_y = spot.x + share * across, spot.y + share * down
        leader = f'<line class="leader" x1="{spot.x:.1f}" y1="{spot.y:.1f}" x2="{end_x:.1f}" y2="{end_y:.1f}"/>'
    kind = "" if point.mark else f' class="letter {colour_class(point.colour)}"'
    return f'{leader}<text{kind} x="{label.x:.1f}" y="{label.y + 4:.1f}" text-anchor="middle">{escape(text)}</text>'
