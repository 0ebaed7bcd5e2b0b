"""All monitors at once: one definition for the training, its report, and the leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..config import TrainConfig
from ..errors import RequestError
from ..events import Warned
from . import diversity_collapse, over_optimisation, over_saturation
from .snapshot import Snapshot

LEAST_PROMPTS = 8
"""With fewer, an interval over prompts is so wide that only the crudest change would show, so there is no warning."""


def find_warnings(
    now: Snapshot,
    start: Snapshot,
    trained_on: Sequence[str] | Mapping[str, float],
    reference: Snapshot | None = None,
) -> list[Warned]:
    """The monitors' warnings about a generator.

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
    warnings = [
        over_optimisation.over_optimisation(now, start, trained_on),
        diversity_collapse.diversity_collapse(now, start),
        over_saturation.over_saturation(now, start, reference),
    ]
    return [warning for warning in warnings if warning is not None]


def trained_on(config: TrainConfig) -> dict[str, float]:
    """Rewards that gradients come from, with the weights whose signs say which way; a floor pushes up."""
    weighted = {name: weight for name, weight in config.largest_weights.items() if weight and config.reward_scale}
    return dict.fromkeys(config.floors, 1.0) | weighted


def check_monitors(config: TrainConfig) -> None:
    """Refuse contradictory settings of the monitors.

    Raises:
        RequestError: a run is to stop on warnings while the monitors are off, or a trained reward is to only watch.
    """
    if config.stop_on and not config.monitor_every:
        raise RequestError(
            f"stop_on={','.join(config.stop_on)} stops a run on what the monitors see, but they are off. Turn them on, "
            "for instance with --set monitor_every=50."
        )
    for name in config.monitor_rewards:
        if name in config.rewards or name in config.floors:
            raise RequestError(
                f"The reward '{name}' is trained on and watched anyway; monitor_rewards names others, which only watch."
            )
