"""What a run trains on, as the monitors see it."""

from __future__ import annotations

from ..config import TrainConfig


def trained_on(config: TrainConfig) -> dict[str, float]:
    """Rewards that gradients come from, with the weights whose signs say which way; a floor pushes up."""
    weighted = {name: weight for name, weight in config.rewards.items() if weight and config.reward_scale}
    return dict.fromkeys(config.floors, 1.0) | weighted
