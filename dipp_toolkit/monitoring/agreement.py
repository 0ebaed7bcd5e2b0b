"""Whether rewards and divergence pull the same way: the cosine between their gradients, see `pull`."""

from __future__ import annotations

from collections.abc import Sequence

from ..events import Warned
from ..utils.messages import number_text
from .diagnostic_names import OPPOSED
from .ranges import Row, how_often, left, numbers

LEAST = -0.5
"""Below, the weaker side loses more than half of its pull to the other.

The emoji world's recommended run has -0.02: on single samples the divergence's gradient is mostly noise of its time."""

READING = (
    "Cosine between the rewards' joint gradient and the divergence's, mean over samples and over the steps since the "
    "diagnosis before: 1 is the same direction, 0 neither, \N{MINUS SIGN}1 one against the other."
)
HEALTHY = (
    "A little below 0 once both have come to a balance. Below \N{MINUS SIGN}0.5 they undo each other's work step by "
    "step, and the generator swings more than it learns."
)


def healthy(value: float) -> bool:
    """Whether a cosine is in its range."""
    return value >= LEAST


def warning(rows: Sequence[Row]) -> Warned | None:
    """The warning, or None."""
    values = [value for _, value in numbers(rows, "pull", "cosine")]
    if not left(values, healthy):
        return None
    return Warned(
        name=OPPOSED,
        text=f"The rewards' gradient pointed against the divergence's {how_often(values, healthy)} (cosine "
        f"{number_text(min(values), '.2f')} at least, where {number_text(LEAST, 'g')} is the limit): each undoes the "
        "other's work. Lower reward_scale, or check that the reward's sign is the one you mean.",
    )
