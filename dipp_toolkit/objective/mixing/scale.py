r"""How strongly the rewards pull beside the divergences: by a number, or measured for a requested pull."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ...utils.piecewise_linear import PiecewiseLinear
from .kl_budget import KLBudget

MEASURED = 16
"""Updates that a size is measured over."""


@dataclass
class FirstSizes:
    """The first sizes of a gradient, one an update, as far as it was neither 0 nor infinite; their median is held.

    Attributes:
        values: at most `MEASURED`.
    """

    values: list[float] = field(default_factory=list)

    def add(self, size: float) -> None:
        """Take an update's size in, unless there are enough."""
        if not self.full and 0 < size < math.inf:
            self.values.append(size)

    @property
    def full(self) -> bool:
        """Whether nothing is taken in any more."""
        return len(self.values) >= MEASURED

    @property
    def usual(self) -> float | None:
        """The median; None before the first."""
        return median(self.values) if self.values else None


CANCELLED = 1e-5
"""Size of the rewards' joint gradient, in shares, below which they cancel: what is left then is rounding."""


@dataclass
class RewardScale:
    r"""What the rewards' gradients are multiplied by before they meet the divergences'; lasts an update.

    Without a pull: `multiplier` times the rewards' own weights, which hold $\alpha_{rew}$.

    With a pull $\pi$ the rewards' weights are shares, $s_i = w_i / \sum_j |w_j|$, and reward $i$ contributes

    $$A\, s_i\, \frac{g_i}{\bar g_i}, \qquad A = \pi \frac{\bar D}{\bar J},$$

    $\bar g_i$ being the usual size of its gradient on $x_0$, $\bar J$ that of the balanced sum of all $s_i g_i / \bar
    g_i$, and $\bar D$ that of the divergences' gradients. Sizes are root mean squares over the whole batch, of all
    passes and processes; the usual one is the median over the first `MEASURED` updates in which the gradient is not 0,
    those of J and D in which both are not. While an update has no usual size before it, each of its passes takes its
    own. After that nothing moves: the scale is held.

    A reward that has no gradient yet, as with an untrained surrogate, counts nothing; when it begins, its own size and
    $\bar J$ are measured from there on, while $\bar D$ stays. Where the divergences, or the rewards together, have no
    gradient, there is nothing to measure against, and the rewards wait: A is 0.

    Attributes:
        pull: $\pi$; None where the weights are multiplied by a number.
        schedule: factors of the whole over the run, None for 1 throughout.
        budget: moves a factor of the whole so that a KL is held, None for none. Neither factor is part of what is
            measured.
        sizes: of each reward's gradient, by the terms' names.
        joint: of the rewards' joint gradient in shares.
        divergence: of the divergences' gradient.
    """

    pull: float | None = None
    schedule: PiecewiseLinear | None = None
    budget: KLBudget | None = None
    sizes: dict[str, FirstSizes] = field(default_factory=dict)
    joint: FirstSizes = field(default_factory=FirstSizes)
    divergence: FirstSizes = field(default_factory=FirstSizes)

    def multiplier(self, step: int) -> Tensor | float:
        """What schedule and budget multiply the whole by at a generator update, the first being 0."""
        factor = 1.0 if self.schedule is None else self.schedule(step)
        return factor if self.budget is None else factor * self.budget.factor

    def rests(self, step: int) -> bool:
        """Whether the budget waits: until the schedule is first at its highest, or it would work against its rise."""
        return self.schedule is not None and step < self.schedule.peak

    @property
    def measures(self) -> bool:
        """Whether the rewards' gradients are measured at all."""
        return self.pull is not None

    def has_begun(self, name: str) -> bool:
        """Whether a reward has had a gradient in an update before."""
        return name in self.sizes and bool(self.sizes[name].values)

    def shares(self, weights: Mapping[str, float]) -> dict[str, float]:
        """The weights as shares; their magnitudes add up to 1."""
        total = sum(abs(weight) for weight in weights.values())
        return {name: weight / total if total else 0.0 for name, weight in weights.items()}

    def settled(self, shares: Mapping[str, float]) -> bool:
        """Whether everything that is measured has been."""
        sizes = [self.sizes.get(name) for name, share in shares.items() if share]
        return self.joint.full and self.divergence.full and all(size is not None and size.full for size in sizes)

    def usual(self, name: str, now: Tensor) -> Tensor:
        """The usual size of a reward's gradient; the pass' own before any was measured.

        Args:
            name: of its term.
            now: of the pass.
        """
        usual = self.sizes[name].usual if name in self.sizes else None
        return now if usual is None else torch.full_like(now, usual)

    def amount(self, joint: Tensor, divergence: Tensor, begins: Tensor) -> Tensor:
        """A, what the balanced shares are multiplied by.

        Args:
            joint: size of the rewards' joint gradient in the pass.
            divergence: that of the divergences'.
            begins: whether a reward has a gradient for the first time.
        """
        assert self.pull is not None
        usual_joint, usual_divergence = self.joint.usual, self.divergence.usual
        if usual_joint is not None:
            joint = torch.where(begins & (joint > CANCELLED), joint, usual_joint)
        if usual_divergence is not None:
            divergence = torch.full_like(divergence, usual_divergence)
        pulls = (joint > CANCELLED) & (divergence > 0)
        return torch.where(pulls, self.pull * divergence / joint, 0.0)

    def held(self) -> float | None:
        """A from the updates so far; None before any was measured."""
        joint, divergence = self.joint.usual, self.divergence.usual
        return None if self.pull is None or joint is None or divergence is None else self.pull * divergence / joint

    def take(self, sizes: Mapping[str, float], joint: float, divergence: float) -> None:
        """Take in what an update measured.

        Args:
            sizes: of the rewards' gradients, by the terms' names; those without a share left out.
            joint: of the rewards' joint gradient in shares.
            divergence: of the divergences' gradient.
        """
        for name, size in sizes.items():
            first = self.sizes.setdefault(name, FirstSizes())
            if not first.values and 0 < size < math.inf:
                self.joint = FirstSizes()
            first.add(size)
        if joint > CANCELLED and divergence > 0:
            self.joint.add(joint)
            self.divergence.add(divergence)

    def state_dict(self) -> dict[str, Any]:
        return {
            "sizes": {name: list(size.values) for name, size in self.sizes.items()},
            "joint": list(self.joint.values),
            "divergence": list(self.divergence.values),
            **({} if self.budget is None else {"budget": self.budget.state_dict()}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.sizes = {name: FirstSizes(list(values)) for name, values in state.get("sizes", {}).items()}
        self.joint = FirstSizes(list(state.get("joint", [])))
        self.divergence = FirstSizes(list(state.get("divergence", [])))
        if self.budget is not None:
            self.budget.load_state_dict(state.get("budget", {}))
