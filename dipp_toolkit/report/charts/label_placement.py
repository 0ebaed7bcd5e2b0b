"""Where labels of points go, so that none covers a point or another label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

RADII = (15.0, 24.0, 34.0, 46.0, 60.0, 78.0, 98.0)
ANGLES = 16


@dataclass(frozen=True)
class Box:
    """A rectangle by its centre and sizes."""

    x: float
    y: float
    width: float
    height: float

    def touches(self, other: Box) -> bool:
        """Whether two rectangles share a point."""
        return (
            abs(self.x - other.x) * 2 < self.width + other.width
            and abs(self.y - other.y) * 2 < self.height + other.height
        )

    def inside(self, left: float, top: float, right: float, bottom: float) -> bool:
        """Whether it lies within these ends."""
        return (
            left <= self.x - self.width / 2
            and self.x + self.width / 2 <= right
            and top <= self.y - self.height / 2
            and self.y + self.height / 2 <= bottom
        )


def place(
    at: tuple[float, float],
    size: tuple[float, float],
    taken: Sequence[Box],
    frame: tuple[float, float, float, float],
) -> Box:
    """The nearest free place for a label around a point.

    Args:
        at: the point.
        size: width and height of the label.
        taken: rectangles of points and of labels that are placed already.
        frame: left, top, right and bottom that the label must stay within.

    Returns:
        The label's rectangle; where nothing is free, one beside the point that covers something.
    """
    width, height = size
    for radius in RADII:
        for step in range(ANGLES):
            # From the upper right, where one looks first, then all around.
            angle = math.tau * ((step + 1) // 2) / ANGLES * (-1) ** step - math.tau / 8
            x = at[0] + math.cos(angle) * (radius + (width - height) / 2)
            box = Box(x, at[1] + math.sin(angle) * radius, width, height)
            if box.inside(*frame) and not any(box.touches(other) for other in taken):
                return box
    return Box(at[0] + RADII[0] + width / 2, at[1], width, height)
