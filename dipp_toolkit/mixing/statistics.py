"""Running statistics of one reward: its scores' mean and deviation, and the size of its gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

DECAY = 0.98
SMALLEST = 1e-12


def _zero() -> Tensor:
    return torch.zeros((), dtype=torch.float64)


def _share(count: Tensor) -> Tensor:
    """What a new value counts among `count`."""
    return (1 - DECAY) / (1 - DECAY**count)


@dataclass
class RewardStatistics:
    r"""Exponential averages with decay 0.98, each divided by $1 - 0.98^n$ so that the first values count in full.

    All are tensors of one number, on the scores' device: nothing is read off an accelerator to keep them.

    Attributes:
        updates: batches seen.
        mean: of the batches' mean scores.
        deviation: of the batches' deviations.
        gradient: of the batches' root-mean-square gradients, those that were 0 left out: a surrogate that is not
            trusted yet says nothing about the size of its gradient.
        pulls: batches whose gradient was not 0.
    """

    updates: Tensor = field(default_factory=_zero)
    pulls: Tensor = field(default_factory=_zero)
    mean: Tensor = field(default_factory=_zero)
    deviation: Tensor = field(default_factory=_zero)
    gradient: Tensor = field(default_factory=_zero)

    def update(self, scores: Float[Tensor, " batch"], size: Float[Tensor, ""]) -> None:
        """Take a batch in.

        Args:
            scores: of the whole batch.
            size: root mean square of its gradient. Where it or a score is not finite, nothing is taken in.
        """
        wide = torch.float32 if scores.device.type == "mps" else torch.float64
        self._to(scores.device, wide)
        scores, size = scores.detach().to(wide), size.detach().to(wide)
        sound = torch.isfinite(scores).all() & torch.isfinite(size)
        pulls = sound & (size > 0)
        self.updates = self.updates + sound
        self.pulls = self.pulls + pulls
        share = _share(self.updates.clamp_min(1))
        self.mean = torch.where(sound, self.mean + share * (scores.mean() - self.mean), self.mean)
        deviation = self.deviation + share * (scores.std(correction=0) - self.deviation)
        self.deviation = torch.where(sound, deviation, self.deviation)
        moved = self.gradient + _share(self.pulls.clamp_min(1)) * (size - self.gradient)
        self.gradient = torch.where(pulls, moved, self.gradient)

    def _to(self, device: torch.device, dtype: torch.dtype) -> None:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name).to(device, dtype))

    @property
    def scale(self) -> Tensor:
        """The deviation, never 0: what differences of scores are measured in."""
        return self.deviation.clamp_min(SMALLEST)

    @property
    def gradient_scale(self) -> Tensor:
        """The root-mean-square gradient, never 0."""
        return self.gradient.clamp_min(SMALLEST)

    def state_dict(self) -> dict[str, Tensor]:
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, torch.as_tensor(value, dtype=torch.float64).clone())
