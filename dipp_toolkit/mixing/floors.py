r"""Floors: hold a reward above a level, by a Lagrange multiplier, while the others are maximised."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

PROPORTIONAL = 0.5
"""Weight of the violation now beside the violations so far; it is what damps the swing of a plain multiplier."""

CONFIDENCE = 2.0
"""The batch's mean counts less this many of its standard errors: noise does not carry a reward beneath its floor."""


@dataclass
class Floor:
    r"""Keeps the mean score of a reward above `level`.

    The violation of a batch of $B$ scores with mean $m$ and deviation $s$ is $h = (\mathrm{level} - m + 2 s /
    \sqrt B) / \bar s$, with $\bar s$ the running deviation, so that it has no unit. The integral $I \leftarrow
    \max(0, I + \eta h)$ and the multiplier $\lambda = \max(0, I + h / 2)$ are the PI controller of Stooke et al.,
    "Responsive safety in reinforcement learning by PID Lagrangian methods" (2020, arXiv 2007.03964, algorithm 2); the
    proportional part takes out the oscillation of dual ascent. How the multiplier becomes a push is the mix's business.

    Attributes:
        level: in the reward's own unit.
        rate: $\eta$, growth of the integral a step.
        integral: $I$.
        violation: $h$ of the last batch.
    """

    level: float
    rate: float = 0.05
    integral: float = 0.0
    violation: float = 0.0

    def update(self, scores: Float[Tensor, " batch"], scale: float) -> float:
        """Take a batch's scores in; returns the multiplier, which has no unit."""
        error = scores.std(correction=0).item() / math.sqrt(len(scores))
        self.violation = (self.level - scores.mean().item() + CONFIDENCE * error) / scale
        self.integral = max(0.0, self.integral + self.rate * self.violation)
        return self.multiplier

    @property
    def multiplier(self) -> float:
        r"""$\lambda$, at least 0."""
        return max(0.0, self.integral + PROPORTIONAL * self.violation)

    def state_dict(self) -> dict[str, float]:
        return {"integral": self.integral, "violation": self.violation}

    def load_state_dict(self, state: dict[str, float]) -> None:
        vars(self).update(state)
