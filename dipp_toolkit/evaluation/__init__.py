"""Numbers at the end of a run: scores with intervals, diversity, Frechet distances, and the images they come from."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .comparison import Comparison, measure, score
    from .diversity import seed_diversity
    from .frechet import frechet_distance, frechet_distance_of_gaussians, frechet_floor
    from .intervals import Interval, bootstrap_interval, mean_interval, paired_interval, share_interval

_LAZY = {
    "Comparison": "comparison",
    "Interval": "intervals",
    "bootstrap_interval": "intervals",
    "frechet_distance": "frechet",
    "frechet_distance_of_gaussians": "frechet",
    "frechet_floor": "frechet",
    "mean_interval": "intervals",
    "measure": "comparison",
    "paired_interval": "intervals",
    "score": "comparison",
    "seed_diversity": "diversity",
    "share_interval": "intervals",
}

__all__ = [
    "Comparison",
    "Interval",
    "bootstrap_interval",
    "frechet_distance",
    "frechet_distance_of_gaussians",
    "frechet_floor",
    "mean_interval",
    "measure",
    "paired_interval",
    "score",
    "seed_diversity",
    "share_interval",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
