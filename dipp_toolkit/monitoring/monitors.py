"""All monitors at once: one definition for the training, its report, and the leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..events import Warned
from . import diversity_collapse, over_optimisation, over_saturation
from .snapshot import Snapshot

LEAST_PROMPTS = 8
"""With fewer, an interval over prompts is so wide that only the crudest change could be said, and nothing is."""


def find_warnings(
    now: Snapshot,
    start: Snapshot,
    trained_on: Sequence[str] | Mapping[str, float],
    reference: Snapshot | None = None,
) -> list[Warned]:
    """What the monitors say of a generator.

    Args:
        now: its images.
        start: images of what its training started from, of the same prompts and noises.
        trained_on: rewards it was trained on, by name or by name with the weights; every other one in the snapshots
            judges.
        reference: the multi-step reference's images of the same prompts, where there are some.

    Returns:
        The warnings; none where nothing is wrong, nor where there are fewer than `LEAST_PROMPTS` prompts.
    """
    if len(now.saturation) < LEAST_PROMPTS:
        return []
    found = [
        over_optimisation.over_optimisation(now, start, trained_on),
        diversity_collapse.diversity_collapse(now, start),
        over_saturation.over_saturation(now, start, reference),
    ]
    return [one for one in found if one is not None]
