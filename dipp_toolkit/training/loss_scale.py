"""Loss scaling: under float16 small gradients would become 0 on their way, so they travel multiplied by a large number.

The rule is that of mixed-precision training (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2): halve the scale
and make no update where a gradient overflows, double it after many updates without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

FIRST, LARGEST = 2.0**16, 2.0**24
PATIENCE = 2000
"""Updates without an overflow after which the scale is doubled."""


@dataclass
class LossScale:
    """The scale of one network's gradients.

    Attributes:
        enabled: without it the scale is 1 and nothing is done.
        scale: what gradients are multiplied by in the backward pass.
        sound: updates since it last changed.
    """

    enabled: bool = False
    scale: float = FIRST
    sound: int = 0

    @property
    def factor(self) -> float:
        """What to multiply the gradient by that a backward pass begins with."""
        return self.scale if self.enabled else 1.0

    @torch.no_grad()
    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the scale."""
        if self.enabled:
            gradients = [one.grad for one in parameters if one.grad is not None]
            torch._foreach_mul_(gradients, 1 / self.scale)

    def overflowed(self, finite: bool) -> bool:
        """Take in how an update went; whether it is the scale that was to blame, and is now less."""
        if not self.enabled:
            return False
        if finite:
            self.sound += 1
            if self.sound >= PATIENCE:
                self.scale, self.sound = min(2 * self.scale, LARGEST), 0
            return False
        if self.scale <= 1:
            return False
        self.scale, self.sound = self.scale / 2, 0
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale, "sound": self.sound}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
