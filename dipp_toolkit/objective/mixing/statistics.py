"""Running statistics of one reward: its scores' mean and deviation, and the size of its gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def root_mean_square(gradient: Float[Tensor, "batch ..."]) -> Float[Tensor, " batch"]:
    """Of each sample."""
    return gradient.flatten(1).square().mean(1).sqrt()


def mean_square(gradient: Float[Tensor, "batch ..."]) -> Float[Tensor, ""]:
    """Over the batch and all elements, in float64 where the device has it: a small float32's square may be 0."""
    wide = torch.float32 if gradient.device.type == "mps" else torch.float64
    return gradient.detach().to(wide).square().mean()


def inverse(size: Tensor) -> Tensor:
    """1 over a size, 0 where that is 0."""
    return torch.where(size > 0, 1 / size, 0.0)


DECAY = 0.98


def _zero() -> Tensor:
    return torch.zeros((), dtype=torch.float64)


def _share(count: Tensor) -> Tensor:
    """What a new value counts among `count`."""
    return (1 - DECAY) / (1 - DECAY**count)


@dataclass
class RewardStatistics:
    r"""Exponential averages with decay 0.98, each divided by $1 - 0.98^n$ so that the first values count in full.

    All are tensors of one number, on the scores' device: nothing is read off an accelerator to keep them. Each takes
    one value an update.

    Attributes:
        updates: updates seen.
        mean: of the updates' mean scores.
        deviation: of the updates' deviations; that of a single score is its distance to the mean before it.
        spreads: updates that had a deviation.
        gradient: of the updates' root-mean-square gradients, those that were 0 left out: a surrogate that is not
            trusted yet says nothing about the size of its gradient.
        pulls: updates whose gradient was not 0.
    """

    updates: Tensor = field(default_factory=_zero)
    pulls: Tensor = field(default_factory=_zero)
    spreads: Tensor = field(default_factory=_zero)
    mean: Tensor = field(default_factory=_zero)
    deviation: Tensor = field(default_factory=_zero)
    gradient: Tensor = field(default_factory=_zero)

    def update(self, scores: Float[Tensor, " batch"], size: Float[Tensor, ""] | None) -> None:
        """Take an update's scores and gradient size in.

        Args:
            scores: of all its passes and processes.
            size: root mean square of its gradient, None where it was not measured. Where it or a score is not finite,
                nothing is taken in.
        """
        wide = torch.float32 if scores.device.type == "mps" else torch.float64
        self._to(scores.device, wide)
        scores = scores.detach().to(wide)
        size = scores.new_zeros(()) if size is None else size.detach().to(wide)
        sound = torch.isfinite(scores).all() & torch.isfinite(size)
        pulls = sound & (size > 0)
        spread = scores.std(correction=0) if len(scores) > 1 else (scores[0] - self.mean).abs()
        has_spread = sound if len(scores) > 1 else sound & (self.updates > 0)
        self.updates = self.updates + sound
        self.spreads = self.spreads + has_spread
        self.pulls = self.pulls + pulls
        share = _share(self.updates.clamp_min(1))
        self.mean = torch.where(sound, self.mean + share * (scores.mean() - self.mean), self.mean)
        deviation = self.deviation + _share(self.spreads.clamp_min(1)) * (spread - self.deviation)
        self.deviation = torch.where(has_spread, deviation, self.deviation)
        moved = self.gradient + _share(self.pulls.clamp_min(1)) * (size - self.gradient)
        self.gradient = torch.where(pulls, moved, self.gradient)

    def _to(self, device: torch.device, dtype: torch.dtype) -> None:
        for number in fields(self):
            setattr(self, number.name, getattr(self, number.name).to(device, dtype))

    def state_dict(self) -> dict[str, Tensor]:
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in {"spreads": state.get("updates", 0.0), **state}.items():
            setattr(self, name, torch.as_tensor(value, dtype=torch.float64).clone())
