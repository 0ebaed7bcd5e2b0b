"""The mix: from each reward's own gradient to what the generator is moved by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..processes import Processes
from ..terms.base import TermResult
from .balance import BALANCES, Balance
from .floors import Floor
from .statistics import RewardStatistics


@dataclass(frozen=True)
class Mixed:
    """What a batch's rewards contribute.

    Attributes:
        contributions: each reward's weighted gradient, like the samples, by name; before balancing.
        added: what is added up in their place.
        details: numbers for the log, by `"number/name"`.
    """

    contributions: Mapping[str, Tensor]
    added: Mapping[str, Tensor]
    details: Mapping[str, float | Tensor]


def root_mean_square(gradient: Tensor) -> Tensor:
    """Of each sample, `(batch,)`."""
    return gradient.flatten(1).square().mean(1).sqrt()


@dataclass
class RewardMix:
    r"""Weighs, clips and balances the gradients of a run's rewards, and holds those with a floor above it.

    Reward $i$ with gradient $g_i$ and weight $w_i$ (its own times `reward_scale`) contributes
    $\mathrm{clip}(w_i g_i)$, or $\mathrm{clip}(w_i g_i / \bar g_i)$ under `normalised`, with $\bar g_i$ its running
    root-mean-square gradient: weights then say how strongly rewards pull, whatever their units.

    A reward with a floor and the multiplier $\lambda_i$ is also pushed by $\lambda_i G g_i / \bar g_i$, $G$ being the
    root mean square of everything else that pulls: $\lambda_i = 1$ is as strong as the rest of the objective, whatever
    the weights. What `pcgrad` and `mgda` do next is said in `balance`.

    Attributes:
        balance: `sum`, `normalised`, `pcgrad` or `mgda`.
        clip: largest root mean square of one sample's contribution, a floor's push aside; None for no limit.
        floors: by the terms' names.
        statistics: by the terms' names.
        processes: those that share the batch; statistics are of the whole of it.
    """

    balance: Balance = "sum"
    clip: float | None = None
    floors: dict[str, Floor] = field(default_factory=dict)
    statistics: dict[str, RewardStatistics] = field(default_factory=dict)
    processes: Processes = field(default_factory=Processes)

    def __call__(
        self, results: Mapping[str, TermResult], weights: Mapping[str, float], rest: Tensor, random: torch.Generator
    ) -> Mixed:
        """Mix a batch.

        Args:
            results: scores and gradients of the rewards, by the terms' names.
            weights: without what floors add.
            rest: the gradients of all other terms, weighted and added up.
            random: source of what balancing draws.
        """
        details: dict[str, float | Tensor] = {}
        contributions = {}
        for name, result in results.items():
            scores = self.processes.gather(result.value.float())
            size = self.processes.mean(result.grad.square().mean()).sqrt()
            self.statistics.setdefault(name, RewardStatistics()).update(scores, size)
            details[f"deviation/{name}"] = scores.std(correction=0)
            contributions[name] = self._weigh(name, result.grad.to(rest.dtype), weights[name], details)
        if not self.floors:
            return Mixed(contributions, self._balanced(contributions, random), details)
        pull = self.processes.mean(torch.stack([rest, *contributions.values()]).sum(0).square().mean()).sqrt()
        for name in sorted(self.floors.keys() & results.keys()):
            statistics, result = self.statistics[name], results[name]
            scores = self.processes.gather(result.value.float())
            multiplier = self.floors[name].update(scores, statistics.scale)
            details[f"multiplier/{name}"] = multiplier
            push = (multiplier / statistics.gradient_scale * pull).to(rest.dtype) * result.grad.to(rest.dtype)
            contributions[name] = contributions[name] + push
        return Mixed(contributions, self._balanced(contributions, random), details)

    def _weigh(self, name: str, gradient: Tensor, weight: float, details: dict[str, float | Tensor]) -> Tensor:
        normalised = self.balance == "normalised"
        if normalised:
            weighed = (weight / self.statistics[name].gradient_scale).to(gradient.dtype) * gradient
        else:
            weighed = weight * gradient
        if self.clip is None:
            return weighed
        size = root_mean_square(weighed)
        factor = (self.clip / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_max(1)
        details[f"clipped/{name}"] = (factor < 1).float().mean()
        return weighed * factor.reshape(-1, *[1] * (weighed.ndim - 1))

    def _balanced(self, gradients: Mapping[str, Tensor], random: torch.Generator) -> dict[str, Tensor]:
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
