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


@dataclass
class Proposal:
    """What the passes of the update under way found of a reward.

    Attributes:
        scores: of each pass, of all processes.
        squares: mean square of each pass' gradient, over all processes.
    """

    scores: list[Tensor] = field(default_factory=list)
    squares: list[Tensor] = field(default_factory=list)


def root_mean_square(gradient: Tensor) -> Tensor:
    """Of each sample, `(batch,)`."""
    return gradient.flatten(1).square().mean(1).sqrt()


def _inverse(size: Tensor) -> Tensor:
    """1 over a size, 0 where that is 0."""
    return torch.where(size > 0, 1 / size, 0.0)


@dataclass
class RewardMix:
    r"""Weighs, clips and balances the gradients of a run's rewards, and holds those with a floor above it.

    Reward $i$ with gradient $g_i$ and weight $w_i$ (its own times `reward_scale`) contributes
    $\mathrm{clip}(w_i g_i)$, or $\mathrm{clip}(w_i g_i / \bar g_i)$ under `normalised`, with $\bar g_i$ its running
    root-mean-square gradient: weights then say how strongly rewards pull, whatever their units.

    A reward with a floor and the multiplier $\lambda_i$ is also pushed by $\lambda_i G g_i / \bar g_i$, $G$ being the
    root mean square of everything else that pulls: $\lambda_i = 1$ is as strong as the rest of the objective, whatever
    the weights. What `pcgrad` and `mgda` do next is said in `balance`.

    Statistics and floors move once an update, by all scores and gradients of its passes and processes: within an update
    every pass uses those of the updates before it. A floor's multiplier is thus 0 in the first update. A gradient of
    which there is no statistic yet is measured by the pass itself.

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
    _proposed: dict[str, Proposal] = field(default_factory=dict, init=False, repr=False, compare=False)

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
        contributions, sizes = {}, {}
        for name, result in results.items():
            scores = self.processes.gather(result.value.float())
            square = self.processes.mean(result.grad.square().mean())
            proposal = self._proposed.setdefault(name, Proposal())
            proposal.scores.append(scores.detach())
            proposal.squares.append(square.detach())
            details[f"deviation/{name}"] = scores.std(correction=0)
            sizes[name] = self._size(name, square.sqrt())
            contributions[name] = self._weigh(name, result.grad.to(rest.dtype), weights[name], sizes[name], details)
        if not self.floors:
            return Mixed(contributions, self._balanced(contributions, random), details)
        pull = self.processes.mean(torch.stack([rest, *contributions.values()]).sum(0).square().mean()).sqrt()
        for name in sorted(self.floors.keys() & results.keys()):
            multiplier = self.floors[name].multiplier.to(rest.device)
            details[f"multiplier/{name}"] = multiplier
            push = (multiplier * _inverse(sizes[name]) * pull).to(rest.dtype) * results[name].grad.to(rest.dtype)
            contributions[name] = contributions[name] + push
        return Mixed(contributions, self._balanced(contributions, random), details)

    def commit(self) -> None:
        """Take in what the passes of an update found, whose gradient is followed."""
        for name, proposal in self._proposed.items():
            scores = torch.cat(proposal.scores)
            statistics = self.statistics.setdefault(name, RewardStatistics())
            statistics.update(scores, torch.stack(proposal.squares).mean().sqrt())
            if name in self.floors:
                self.floors[name].update(scores, statistics.deviation)
        self._proposed.clear()

    def discard(self) -> None:
        """Forget what the passes of an update found that is skipped, or failed."""
        self._proposed.clear()

    def _size(self, name: str, now: Tensor) -> Tensor:
        """The usual root mean square of a reward's gradient: of the updates before; the pass' own where none had any.

        Args:
            name: of the reward's term.
            now: of the pass.
        """
        statistics = self.statistics.get(name)
        if statistics is None:
            return now
        return torch.where(statistics.pulls.to(now.device) > 0, statistics.gradient.to(now.device), now)

    def _weigh(
        self, name: str, gradient: Tensor, weight: float, usual: Tensor, details: dict[str, float | Tensor]
    ) -> Tensor:
        normalised = self.balance == "normalised"
        weighed = (weight * _inverse(usual)).to(gradient.dtype) * gradient if normalised else weight * gradient
        if self.clip is None:
            return weighed
        size = root_mean_square(weighed)
        factor = (self.clip / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_max(1)
        details[f"clipped/{name}"] = (factor < 1).float().mean()
        return weighed * factor.reshape(-1, *[1] * (weighed.ndim - 1))

    def _balanced(self, gradients: Mapping[str, Tensor], random: torch.Generator) -> dict[str, Tensor]:
        if self.balance not in ("pcgrad", "mgda") or len(gradients) < 2:
            return dict(gradients)
        pulls = torch.stack([one.any() for one in gradients.values()]).tolist()
        # A zero would be the least norm of all.
        pulling = {name: one for (name, one), nonzero in zip(gradients.items(), pulls, strict=True) if nonzero}
        if len(pulling) < 2:
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
