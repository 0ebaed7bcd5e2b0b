"""The mix: from each reward's own gradient to what the generator is moved by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...config import MEASURE_EVERY
from ...distributed import Processes
from ...errors import RunError
from ...utils.device import read_scalars
from ..base import TermResult
from ..result import metric_name
from .balance import BALANCES, Balance
from .floors import Floor
from .kl_budget import KLBudget
from .scale import MEASURED, RewardScale
from .statistics import RewardStatistics, inverse, mean_square, root_mean_square


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


@dataclass(frozen=True)
class Joint:
    """Rewards whose gradients came out of one backward pass of the decoder.

    Attributes:
        factors: what each one's own gradient was multiplied by, by the terms' names.
        gradient: the sum, like the samples.
    """

    factors: Mapping[str, Tensor | float]
    gradient: Tensor


@dataclass
class Proposal:
    """What the passes of the current update measured of a reward.

    Attributes:
        scores: of each pass, of all processes.
        squares: mean square of each pass' gradient, over all processes.
        share: its weight's, where the scale is measured.
    """

    scores: list[Tensor] = field(default_factory=list)
    squares: list[Tensor] = field(default_factory=list)
    share: float = 0.0

    @property
    def size(self) -> Tensor | None:
        """Root mean square of the update's gradient; None where it is not known by itself."""
        return torch.stack(self.squares).mean().sqrt() if self.squares else None


@dataclass
class RewardMix:
    r"""Weighs, clips and balances the gradients of a run's rewards, and holds those with a floor above it.

    Reward $i$ with gradient $g_i$ and weight $w_i$ (its own times `reward_scale`) contributes
    $\mathrm{clip}(w_i g_i)$, or $\mathrm{clip}(w_i g_i / \bar g_i)$ under `normalised`, with $\bar g_i$ its running
    root-mean-square gradient: weights then say how strongly rewards pull, whatever their units.

    Where the scale is measured for a pull (see `RewardScale`) it contributes $A s_i\, \mathrm{clip}(g_i / \bar g_i)$,
    with $\bar g_i$ its size in the first updates, or the running one under `normalised`. A clip is then in multiples of
    the reward's own usual gradient.

    A reward with a floor and the multiplier $\lambda_i$ is also pushed by $\lambda_i G g_i / \bar g_i$, with the
    running $\bar g_i$ and $G$ being the root mean square of everything else that pulls: $\lambda_i = 1$ is as strong as
    the rest of the objective, whatever the weights. It comes on top of a requested pull. For what `pcgrad` and
    `mgda` do next see `balance`.

    Statistics and floors move once an update, by all scores and gradients of its passes and processes: within an update
    every pass uses those of the updates before it. A floor's multiplier is thus 0 in the first update. A gradient of
    which there is no statistic yet is measured by the pass itself.

    Attributes:
        balance: `sum`, `normalised`, `pcgrad` or `mgda`.
        clip: largest root mean square of one sample's contribution, a floor's push aside; None for no limit.
        scale: what all weights are multiplied by.
        floors: by the terms' names.
        statistics: by the terms' names.
        processes: those that share the batch; statistics are of the whole of it.
        measure_every: updates from one in which each reward's own gradient is measured to the next. In between, rewards
            that are only added up go through the decoder together.
    """

    balance: Balance = "sum"
    clip: float | None = None
    floors: dict[str, Floor] = field(default_factory=dict)
    statistics: dict[str, RewardStatistics] = field(default_factory=dict)
    processes: Processes = field(default_factory=Processes)
    scale: RewardScale = field(default_factory=RewardScale)
    measure_every: int = MEASURE_EVERY
    _proposed: dict[str, Proposal] = field(default_factory=dict, init=False, repr=False, compare=False)
    _sides: list[Tensor] = field(default_factory=list, init=False, repr=False, compare=False)

    def __call__(
        self,
        results: Mapping[str, TermResult],
        weights: Mapping[str, float],
        rest: Tensor,
        random: torch.Generator,
        divergence: Tensor | None = None,
        step: int = 0,
        kl: Tensor | None = None,
        joint: Joint | None = None,
    ) -> Mixed:
        """Mix a pass.

        Args:
            results: scores and gradients of the rewards, by the terms' names.
            weights: without what floors add.
            rest: the gradients of all other terms, weighted and added up.
            random: source of what balancing draws.
            divergence: those of the divergences among them; `rest` where not given.
            step: number of the generator update, from 0.
            kl: the integral KL of the pass in nats a dimension, where a divergence reports it.
            joint: rewards among them whose sum alone is known; it is theirs to add, with no contribution here.

        Raises:
            RunError: there is a budget for the KL, and none reports it.
        """
        details: dict[str, float | Tensor] = {}
        sizes = {}
        for name, result in results.items():
            scores = self.processes.gather(result.value.float())
            if result.counted is not None:
                scores = scores[self.processes.gather(result.counted) > 0]
            if len(scores):
                details[metric_name("deviation", name)] = scores.std(correction=0)
            if joint is not None and name in joint.factors:
                self._proposed.setdefault(name, Proposal()).scores.append(scores.detach())
                if self.scale.measures:
                    details[metric_name("scale", name)] = joint.factors[name]
                continue
            square = self.processes.mean(mean_square(result.grad if result.measured is None else result.measured))
            proposal = self._proposed.setdefault(name, Proposal())
            proposal.scores.append(scores.detach())
            proposal.squares.append(square.detach())
            sizes[name] = square.sqrt()
        gradients = {name: results[name].grad.to(rest.dtype) for name in sizes}
        factor = self.scale.multiplier(step)
        if self.scale.measures:
            against = rest if divergence is None else divergence
            contributions, added = self._pulled(gradients, weights, sizes, against, random, details, factor)
        else:
            contributions = {
                name: self._clipped(name, self._weighed(name, gradient, factor * weights[name], sizes[name]), details)
                for name, gradient in gradients.items()
            }
            added = None
        if self.scale.budget is not None:
            pulling = [*contributions.values()] + ([] if joint is None else [joint.gradient])
            self._note(self.scale.budget, kl, pulling, step, details)
        if not self.floors:
            return Mixed(contributions, added or self._balanced(contributions, random), details)
        pull = self.processes.mean(mean_square(torch.stack([rest, *contributions.values()]).sum(0))).sqrt()
        for name in sorted(self.floors.keys() & results.keys()):
            multiplier = self.floors[name].multiplier.to(rest.device)
            details[metric_name("multiplier", name)] = multiplier
            push = (multiplier * inverse(self._running(name, sizes[name])) * pull).to(rest.dtype) * gradients[name]
            contributions[name] = contributions[name] + push
        return Mixed(contributions, self._balanced(contributions, random), details)

    def factors_ahead(self, weights: Mapping[str, float], step: int) -> dict[str, Tensor | float] | None:
        """What each reward's own gradient is multiplied by, where that is known before it is: where rewards are added
        up and nothing about them has to be measured. None elsewhere, and in every update in which each is measured.

        Args:
            weights: of all rewards, by the terms' names.
            step: number of the generator update, from 0.
        """
        if self.balance != "sum" or self.clip is not None or self.floors:
            return None
        if step < MEASURED or step % self.measure_every == 0:
            return None
        factor = self.scale.multiplier(step)
        if not self.scale.measures:
            return {name: factor * weight for name, weight in weights.items()}
        shares = self.scale.shares(weights)
        held = self.scale.held() if self.scale.settled(shares) else None
        if held is None:
            return None
        usual = {name: self.scale.sizes[name].usual if share else None for name, share in shares.items()}
        return {name: factor * held * share / (usual[name] or 1.0) for name, share in shares.items()}

    def _pulled(
        self,
        gradients: Mapping[str, Tensor],
        weights: Mapping[str, float],
        sizes: Mapping[str, Tensor],
        divergence: Tensor,
        random: torch.Generator,
        details: dict[str, float | Tensor],
        factor_of_all: Tensor | float,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Contributions, and what is added up in their place, whose pull is the requested one."""
        scale, shares = self.scale, self.scale.shares(weights)
        factors, units, begins = {}, {}, torch.zeros((), dtype=torch.bool, device=divergence.device)
        for name, gradient in gradients.items():
            usual = (self._running if self.balance == "normalised" else scale.usual)(name, sizes[name])
            factors[name] = shares[name] * inverse(usual)
            units[name] = shares[name] * self._clipped(name, inverse(usual).to(gradient.dtype) * gradient, details)
            self._proposed[name].share = shares[name]
            if shares[name] and not scale.has_begun(name):
                begins = begins | (sizes[name] > 0)
        balanced = self._balanced(units, random)
        held = scale.held() if scale.settled(shares) else None
        if held is None:
            joint = torch.stack(list(balanced.values())).sum(0)
            squares = self.processes.mean(torch.stack([mean_square(joint), mean_square(divergence)]))
            self._sides.append(squares)
            joint_size, divergence_size = squares.sqrt()
            amount = factor_of_all * scale.amount(joint_size, divergence_size, begins)
        else:
            scaled, there = factor_of_all * held, divergence.device
            # A number is filled in there: a copy from here would be waited for.
            amount = scaled.to(there) if isinstance(scaled, Tensor) else torch.full((), scaled, device=there)
        details |= {metric_name("scale", name): amount * factor for name, factor in factors.items()}
        amount = amount.to(divergence.dtype)
        contributions = {name: amount * gradient for name, gradient in units.items()}
        return contributions, {name: amount * gradient for name, gradient in balanced.items()}

    def _note(
        self,
        budget: KLBudget,
        kl: Tensor | None,
        contributions: Sequence[Tensor],
        step: int,
        details: dict[str, float | Tensor],
    ) -> None:
        """Report a pass to the budget."""
        if kl is None:
            raise RunError(
                "The settings have a kl_budget, but no divergence of the objective reports the KL that it limits. A "
                "term of your own reports it as the detail 'kl', see objective/terms/divergence.py; or leave kl_budget "
                "out."
            )
        pulls = torch.stack(list(contributions)).any()
        budget.note(kl, torch.zeros_like(pulls) if self.scale.rests(step) else pulls)
        details |= {"kl_running": budget.kl, "kl_factor": budget.factor}

    def commit(self) -> None:
        """Take in what the passes of an update measured: its gradient is followed."""
        for name, proposal in self._proposed.items():
            scores = torch.cat(proposal.scores)
            statistics = self.statistics.setdefault(name, RewardStatistics())
            if len(scores):
                statistics.update(scores, proposal.size)
            if name in self.floors:
                self.floors[name].update(scores, statistics.deviation)
        self._measure()
        if self.scale.budget is not None:
            self.scale.budget.commit()
        self.discard()

    def discard(self) -> None:
        """Drop what the passes of an update measured: it was skipped, or failed."""
        self._proposed.clear()
        self._sides.clear()
        if self.scale.budget is not None:
            self.scale.budget.discard()

    def _measure(self) -> None:
        """Take the update's sizes in while something has to be measured: in a run's first updates they are read."""
        if not self._sides:
            return
        joint, divergence = torch.stack(self._sides).mean(0).sqrt()
        sizes = {
            f"of/{name}": size
            for name, proposal in self._proposed.items()
            if proposal.share and (size := proposal.size) is not None
        }
        numbers = read_scalars({"joint": joint, "divergence": divergence, **sizes})
        joint_size, divergence_size = numbers.pop("joint"), numbers.pop("divergence")
        self.scale.take({name.removeprefix("of/"): size for name, size in numbers.items()}, joint_size, divergence_size)

    def _running(self, name: str, now: Tensor) -> Tensor:
        """The running root mean square of a reward's gradient; the pass' own where no update before had any.

        Args:
            name: of the reward's term.
            now: of the pass.
        """
        statistics = self.statistics.get(name)
        if statistics is None:
            return now
        return torch.where(statistics.pulls.to(now.device) > 0, statistics.gradient.to(now), now)

    def _weighed(self, name: str, gradient: Tensor, weight: Tensor | float, now: Tensor) -> Tensor:
        if self.balance != "normalised":
            return weight * gradient
        return (weight * inverse(self._running(name, now))).to(gradient.dtype) * gradient

    def _clipped(self, name: str, gradient: Tensor, details: dict[str, float | Tensor]) -> Tensor:
        if self.clip is None:
            return gradient
        size = root_mean_square(gradient)
        factor = (self.clip / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_max(1)
        details[metric_name("clipped", name)] = (factor < 1).float().mean()
        return gradient * factor.reshape(-1, *[1] * (gradient.ndim - 1))

    def _balanced(self, gradients: Mapping[str, Tensor], random: torch.Generator) -> dict[str, Tensor]:
        if self.balance not in ("pcgrad", "mgda") or len(gradients) < 2:
            return dict(gradients)
        pulls = torch.stack([gradient.any() for gradient in gradients.values()]).tolist()
        # A zero would be the least norm of all.
        pulling = {
            name: gradient for (name, gradient), nonzero in zip(gradients.items(), pulls, strict=True) if nonzero
        }
        if len(pulling) < 2:
            return dict(gradients)
        stacked = torch.stack([gradient.flatten(1) for gradient in pulling.values()])
        balanced = BALANCES[self.balance](stacked, random)
        return {
            **gradients,
            **{name: balanced[i].reshape(gradient.shape) for i, (name, gradient) in enumerate(pulling.items())},
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "statistics": {name: statistics.state_dict() for name, statistics in self.statistics.items()},
            "floors": {name: floor.state_dict() for name, floor in self.floors.items()},
            "scale": self.scale.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.statistics.clear()  # a state of before the first update holds none
        for name, values in state.get("statistics", {}).items():
            self.statistics.setdefault(name, RewardStatistics()).load_state_dict(values)
        for name, values in state.get("floors", {}).items():
            if name in self.floors:
                self.floors[name].load_state_dict(values)
        self.scale.load_state_dict(state.get("scale", {}))
