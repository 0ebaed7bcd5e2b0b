"""The judge against the Frechet distance, with the Pareto front of what was trained, as an SVG file of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.fair_study.records import Record
from benchmarks.family_study.page import OFF_SCALE, SHORT, STYLE
from dipp_toolkit.report.charts.scatter import Point, scatter


def figure(trained: Mapping[str, Sequence[Record]], columns: Mapping[str, Sequence[Record]]) -> str:
    """The figure.

    Args:
        trained: rows of each sibling's runs; a point a sibling.
        columns: what was not trained here; squares, and not part of the front.
    """
    points = []
    for name, rows in {**trained, **columns}.items():
        x = sum(row.numbers["frechet"] for row in rows) / len(rows)
        y = sum(row.numbers["judge"][0] for row in rows) / len(rows)
        label = {"label": SHORT.get(name, name)} if name in trained else {"mark": name}
        points.append(Point(name, x, y, **label))
    inside = [point for point in points if point.x <= OFF_SCALE]
    drawn = str(scatter(inside, "Frechet distance (less is better)", "judge's preference", -1, 1))
    head, _, rest = drawn.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg" width="760"><style>{STYLE}</style>{rest}\n'
