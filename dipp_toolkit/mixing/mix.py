"""The mix: from each reward's own gradient to what the generator is moved by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..terms.base import TermResult
from .balance import BALANCES, Balance
from .floors import Floor
from .statistics import RewardStatistics


@dataclass
class RewardMix:
    r"""Weighs, clips and balances the gradients of a run's rewards, and holds those with a floor above it.

    Reward $i$ with gradient $g_i$ and weight $w_i$ (its own times `reward_scale`) contributes
    $\mathrm{clip}(w_i g_i)$, or $\mathrm{clip}(w_i g_i / \bar g_i)$ under `normalised`, with $\bar g_i$ its running
    root-mean-square gradient: weights then say how strongly rewards pull, whatever their units. A floor adds to $w_i$.
    What `pcgrad` and `mgda` do next is said in `balance`.

    Attributes:
        balance: `sum`, `normalised`, `pcgrad` or `mgda`.
        clip: largest root mean square of one sample's contribution; None for no limit.
        floors: by the terms' names.
        floor_scale: weight of a floor's multiplier, `reward_scale`.
        statistics: by the terms' names.
    """

    balance: Balance = "sum"
    clip: float | None = None
    floors: dict[str, Floor] = field(default_factory=dict)
    floor_scale: float = 1.0
    statistics: dict[str, RewardStatistics] = field(default_factory=dict)

    def weigh(self, name: str, result: TermResult, weight: float) -> tuple[Tensor, dict[str, float]]:
        """One reward's contribution, and numbers for the log.

        Args:
            name: the term's.
            result: its scores and gradient.
            weight: its weight, the floor's share not counted.
        """
        scores = result.value.float()
        statistics = self.statistics.setdefault(name, RewardStatistics())
        statistics.update(scores, result.grad)
        details = {"deviation": scores.std(correction=0).item()}
        normalised = self.balance == "normalised"
        if name in self.floors:
            multiplier = self.floors[name].update(scores, statistics.scale)
            weight = weight + self.floor_scale * multiplier / (1.0 if normalised else statistics.scale)
            details["multiplier"] = multiplier
        gradient = (weight / statistics.gradient_scale if normalised else weight) * result.grad
        if self.clip is not None:
            size = gradient.flatten(1).square().mean(1).sqrt()
            factor = (self.clip / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_max(1)
            gradient = gradient * factor.reshape(-1, *[1] * (gradient.ndim - 1))
            details["clipped"] = (factor < 1).float().mean().item()
        return gradient, details

    def combine(self, gradients: Mapping[str, Tensor], random: torch.Generator) -> dict[str, Tensor]:
        """What is added up in the place of these contributions, by name."""
        pulling = {name: one for name, one in gradients.items() if one.any()}  # a zero would be the least norm of all
        if self.balance not in ("pcgrad", "mgda") or len(pulling) < 2:
            return dict(gradients)
        stacked = torch.stack([one.flatten(1) for one in pulling.values()])
        balanced = BALANCES[self.balance](stacked, random)
        return {**gradients, **{name: balanced[i].reshape(one.shape) for i, (name, one) in enumerate(pulling.items())}}

    def state_dict(self) -> dict[str, Any]:
        return {
            "statistics": {name: one.state_dict() for name, one in self.statistics.items()},
            "floors": {name: one.state_dict() for name, one in self.floors.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, one in state.get("statistics", {}).items():
            self.statistics.setdefault(name, RewardStatistics()).load_state_dict(one)
        for name, one in state.get("floors", {}).items():
            if name in self.floors:
                self.floors[name].load_state_dict(one)
