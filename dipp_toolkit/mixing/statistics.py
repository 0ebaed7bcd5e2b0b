"""Running statistics of one reward: its scores' mean and deviation, and the size of its gradient."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

DECAY = 0.98
SMALLEST = 1e-12


def _share(count: int) -> float:
    """What a new value counts among `count`."""
    return (1 - DECAY) / (1 - DECAY**count)


@dataclass
class RewardStatistics:
    r"""Exponential averages with decay 0.98, each divided by $1 - 0.98^n$ so that the first values count in full.

    Attributes:
        updates: batches seen.
        mean: of the batches' mean scores.
        deviation: of the batches' deviations.
        gradient: of the batches' root-mean-square gradients, those that were 0 left out: a surrogate that is not
            trusted yet says nothing about the size of its gradient.
        pulls: batches whose gradient was not 0.
    """

    updates: int = 0
    pulls: int = 0
    mean: float = 0.0
    deviation: float = 0.0
    gradient: float = 0.0

    def update(self, scores: Float[Tensor, " batch"], gradient: Float[Tensor, "batch ..."]) -> None:
        """Take a batch in."""
        self.updates += 1
        share = _share(self.updates)
        self.mean += share * (scores.mean().item() - self.mean)
        self.deviation += share * (scores.std(correction=0).item() - self.deviation)
        size = gradient.square().mean().sqrt().item()
        if size > 0:
            self.pulls += 1
            self.gradient += _share(self.pulls) * (size - self.gradient)

    @property
    def scale(self) -> float:
        """The deviation, never 0: what differences of scores are measured in."""
        return max(self.deviation, SMALLEST)

    @property
    def gradient_scale(self) -> float:
        """The root-mean-square gradient, never 0."""
        return max(self.gradient, SMALLEST)

    def state_dict(self) -> dict[str, float]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, float]) -> None:
        vars(self).update(state)
