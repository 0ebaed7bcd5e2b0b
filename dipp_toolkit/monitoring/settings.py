"""Settings of the monitors that fit together."""

from __future__ import annotations

from ..config import TrainConfig
from ..errors import RequestError


def check_monitors(config: TrainConfig) -> None:
    """Refuse settings of the monitors that cannot be meant.

    Raises:
        RequestError: a run is to stop on warnings nobody looks for, or a trained reward is to only watch.
    """
    if config.stop_on and not config.monitor_every:
        raise RequestError(
            f"stop_on={','.join(config.stop_on)} stops a run on what the monitors see, and they are off. Turn them on, "
            "for instance with --set monitor_every=50."
        )
    for name in config.monitor_rewards:
        if name in config.rewards or name in config.floors:
            raise RequestError(
                f"The reward '{name}' is trained on and watched anyway; monitor_rewards names others, which only watch."
            )
