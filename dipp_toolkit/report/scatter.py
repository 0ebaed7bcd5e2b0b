"""Scatter plots with a Pareto front as inline SVG, in the style of `chart`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from .chart import Axis, colour_class

WIDTH, HEIGHT = 380.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 12.0, 40.0


@dataclass(frozen=True)
class Point:
    """A point.

    Attributes:
        name: said when it is pointed at.
        colour: number of its colour.
        mark: where there is one, the point is a square with this text beside it, and no part of the front.
        label: a text of one or two letters inside the point.
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

    def beaten(one: Point) -> bool:
        a = (x_sign * one.x, y_sign * one.y)
        others = [(x_sign * other.x, y_sign * other.y) for other in points]
        return any(b[0] >= a[0] and b[1] >= a[1] and b != a for b in others)

    return sorted((one for one in points if not beaten(one)), key=lambda one: (one.x, one.y))


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
    x = _axis([one.x for one in points], LEFT, WIDTH - RIGHT)
    y = _axis([one.y for one in points], HEIGHT - BOTTOM, TOP)
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
    front = pareto_front([one for one in points if not one.mark], x_sign, y_sign)
    if len(front) > 1:
        line = " ".join(f"{x(one.x):.1f},{y(one.y):.1f}" for one in front)
        parts.append(f'<polyline class="front" points="{line}"/>')
    written: list[tuple[float, float]] = []
    for one in points:
        at_x, at_y = x(one.x), y(one.y)
        title = f"<title>{escape(one.name)}: {escape(x_name)} {one.x:.4g}, {escape(y_name)} {one.y:.4g}</title>"
        if one.mark:
            flip = at_x > WIDTH - 90
            side, anchor = (-8, "end") if flip else (8, "start")
            text_y = at_y + 4
            while any(abs(at_x - other_x) < 90 and abs(text_y - other_y) < 13 for other_x, other_y in written):
                text_y += 13
            written.append((at_x, text_y))
            place = f'x="{at_x + side:.1f}" y="{text_y:.1f}" text-anchor="{anchor}"'
            parts.append(
                f'<g><rect class="mark" x="{at_x - 4:.1f}" y="{at_y - 4:.1f}" width="8" height="8"/>'
                f"<text {place}>{escape(one.mark)}</text>{title}</g>"
            )
        else:
            ring = " on-front" if one in front else ""
            place = f'cx="{at_x:.1f}" cy="{at_y:.1f}" r="{9 if one.label else 5}"'
            parts.append(f'<g><circle class="dot {colour_class(one.colour)}{ring}" {place}/>{title}')
            if one.label:
                inside = f'x="{at_x:.1f}" y="{at_y + 4:.1f}" text-anchor="middle"'
                parts.append(f'<text class="inside" {inside}>{escape(one.label)}</text>')
            parts.append("</g>")
    return Markup("".join([*parts, "</svg>"]))
