"""Scatter plots: labels keep apart, names are escaped."""

from __future__ import annotations

import re
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from dipp_toolkit.report.charts.label_placement import Box, place
from dipp_toolkit.report.charts.scatter import Point, scatter

FRAME = (0.0, 0.0, 380.0, 270.0)
SPOTS = st.lists(st.tuples(st.floats(60, 320), st.floats(40, 230)), min_size=1, max_size=8)


@settings(deadline=None, max_examples=200)
@given(SPOTS)
def test_labels_cover_no_point_and_no_other_label(spots: list[tuple[float, float]]) -> None:
    points = [Box(x, y, 13, 13) for x, y in spots]
    labels: list[Box] = []
    for at in spots:
        labels.append(place(at, (18, 13), [*points, *labels], FRAME))
    assert not any(a.touches(b) for a, b in combinations(labels, 2))
    assert not any(label.touches(point) for label in labels for point in points)
    assert all(label.inside(*FRAME) for label in labels)


def test_a_lone_label_stays_near() -> None:
    label = place((100, 100), (18, 13), [Box(100, 100, 13, 13)], FRAME)
    assert abs(label.x - 100) < 25 and abs(label.y - 100) < 25


def test_points_at_one_spot_and_names_that_are_markup() -> None:
    points = [Point("<b>one</b>", 1, 1, 0, label="1"), Point("two", 1, 1, 1, label="2"), Point("s", 1, 1, mark="a<b")]
    chart = str(scatter(points, "x<y", "y", 1, 1))
    assert "<b>one" not in chart and "&lt;b&gt;one" in chart and "x&lt;y" in chart and "a&lt;b" in chart
    places = re.findall(
        r'<text(?: class="letter [^"]*")? x="([\d.]+)" y="([\d.]+)" text-anchor="middle">(?:1|2|a&lt;b)<', chart
    )
    assert len(set(places)) == 3
    assert "nan" not in chart
