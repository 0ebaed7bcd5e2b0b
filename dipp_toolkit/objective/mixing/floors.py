r"""Floors: hold a reward above a level, by a Lagrange multiplier, while the others are maximised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

PROPORTIONAL = 0.5
"""Weight of the violation now beside the violations so far; it is what damps the swing of a plain multiplier."""

CONFIDENCE = 2.0
"""The batch's mean counts less this many of its standard errors: noise does not carry a reward beneath its floor."""


@dataclass
class Floor:
    r"""Keeps the mean score of a reward above `level`.

    The violation of an update of $B$ scores with mean $m$ and deviation $s$ is $h = (\mathrm{level} - m + 2 s /
    \sqrt B) / \bar s$, with $\bar s$ the running deviation, so that it has no unit; it is 0 while all scores are equal.
    The integral $I \leftarrow \max(0, I + \eta h)$ and the multiplier $\lambda = \max(0, I + h / 2)$ are the PI
    controller of Stooke et al., "Responsive safety in reinforcement learning by PID Lagrangian methods" (2020, arXiv
    2007.03964, algorithm 2); the proportional part takes out the oscillation of dual ascent. How the multiplier becomes
    a push is the mix's business.

    An update takes the scores of all its passes in at once, at its end; what pushes in it is the multiplier of the
    updates before, 0 in the first.

    Attributes:
        level: in the reward's own unit.
        rate: $\eta$, growth of the integral an update.
        integral: $I$; a tensor of one number on the scores' device from the first update on.
        violation: $h$ of the last update, likewise.
    """

    level: float
    rate: float = 0.05
    integral: Tensor | float = 0.0
    violation: Tensor | float = 0.0

    def update(self, scores: Float[Tensor, " batch"], scale: Tensor | float) -> Tensor:
        """Take an update's scores in; returns the multiplier, which has no unit.

        Args:
            scores: of all passes and processes; where they are not finite, nothing changes.
            scale: the running deviation.
        """
        wide = torch.float32 if scores.device.type == "mps" else torch.float64
        scores = scores.detach().to(wide)
        before = torch.as_tensor(self.integral, dtype=wide, device=scores.device)
        scale = torch.as_tensor(scale, dtype=wide, device=scores.device)
        error = (scores.std(correction=0) if len(scores) > 1 else scale) / math.sqrt(len(scores))
        violation = torch.where(scale > 0, (self.level - scores.mean() + CONFIDENCE * error) / scale, 0.0)
        sound = torch.isfinite(violation)
        self.violation = torch.where(sound, violation, 0.0)
        self.integral = torch.where(sound, (before + self.rate * violation).clamp_min(0), before)
        return self.multiplier

    @property
    def multiplier(self) -> Tensor:
        r"""$\lambda$, at least 0."""
        return (torch.as_tensor(self.integral) + PROPORTIONAL * self.violation).clamp_min(0)

    def state_dict(self) -> dict[str, Tensor | float]:
        return {"integral": self.integral, "violation": self.violation}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
