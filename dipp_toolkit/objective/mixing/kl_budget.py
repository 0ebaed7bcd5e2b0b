r"""A KL budget: the rewards' scale is moved so that the generator stays at a chosen distance from the reference.

A scale has no meaning of its own, a distance has: what the rewards gain is compared at equal KL (Gao, Schulman and
Hilton 2022, "Scaling laws for reward model overoptimization", arXiv 2210.10760). The controller works on the logarithm
of the scale, as that of Ziegler et al. 2019, "Fine-tuning language models from human preferences" (arXiv 1909.08593,
section 2.2), does on the KL's coefficient. Its proportional part takes out the swing of an integral alone, as in Stooke
et al. 2020 (arXiv 2007.03964) and in `floors`: a generator takes many updates to answer to a scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...distributed import Processes

DECAY = 0.9
"""Of the running KL: an update's estimate is of one batch."""

RATE = 0.02
"""Growth an update of the scale's logarithm, for a KL that is e times too low."""

PROPORTIONAL = 1.0
"""Weight of the error now beside those so far, with which a KL that answers within 100 updates hardly overshoots."""

MOST_ERROR = 2.0
"""Of the KL's logarithm; a KL that is further off, none at all say, counts as much."""

REST = 16
"""Updates with rewards before it moves: a KL has to come up first, and an automatic scale is measured over as many."""

LARGEST = 1000.0
"""The factor, either way."""


def _wide(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass
class KLBudget:
    r"""Holds the running KL at a level by a factor of the rewards' scale.

    With the error $e = \mathrm{clip}(\log \overline{KL}/B, \pm 2)$ the integral is $I \leftarrow I - \eta e$ and the
    factor $e^{I - k e}$, between 1/1000 and 1000. For the first `REST` updates in which rewards pull it is 1, and it
    leaves 1 without a jump. It moves once an update, by all passes and processes, and not where the rewards have no
    gradient.

    Attributes:
        level: B, in nats for each dimension of a sample.
        processes: those that share the batch.
        kl: the running KL; a tensor of one number from the first update on, as all that follow.
        updates: how many are in it.
        pulled: updates in which rewards pulled.
        integral: I.
    """

    level: float
    processes: Processes = field(default_factory=Processes)
    kl: Tensor | float = 0.0
    updates: Tensor | float = 0.0
    pulled: Tensor | float = 0.0
    integral: Tensor | float = 0.0
    _proposed: list[tuple[Tensor, Tensor]] = field(default_factory=list, init=False, repr=False, compare=False)

    def note(self, kl: Float[Tensor, ""], pulls: Tensor) -> None:
        """Remember what a pass measured.

        Args:
            kl: this process' estimate.
            pulls: whether rewards have a gradient there.
        """
        wide = _wide(kl.device)
        both = torch.stack([kl.detach().to(wide), pulls.detach().to(kl.device, wide)])
        mean_kl, mean_pulls = self.processes.mean(both)
        self._proposed.append((mean_kl, mean_pulls))

    def commit(self) -> None:
        """Move by what the passes of an update measured; numbers that are not finite move nothing."""
        if not self._proposed:
            return
        kl, pulls = (torch.stack(column).mean() for column in zip(*self._proposed, strict=True))
        self._proposed.clear()
        before, updates, pulled, integral = (
            torch.as_tensor(number, dtype=kl.dtype, device=kl.device)
            for number in (self.kl, self.updates, self.pulled, self.integral)
        )
        sound = torch.isfinite(kl)
        self.updates = updates + sound
        share = (1 - DECAY) / (1 - DECAY ** self.updates.clamp_min(1))
        self.kl = torch.where(sound, before + share * (kl - before), before)
        moves = sound & (pulls > 0)
        self.pulled = pulled + moves
        error = self.error
        moved = torch.where(self.pulled > REST, integral - RATE * error, PROPORTIONAL * error)
        bound = math.log(LARGEST)
        self.integral = torch.where(moves, moved.clamp(-bound, bound), integral)

    def discard(self) -> None:
        """Drop what the passes of an update measured: it is not followed."""
        self._proposed.clear()

    @property
    def error(self) -> Tensor:
        """e; 0 before the first update."""
        log_ratio = (torch.as_tensor(self.kl) / self.level).log().clamp(-MOST_ERROR, MOST_ERROR)
        return torch.where(torch.as_tensor(self.updates) > 0, log_ratio, 0.0)

    @property
    def factor(self) -> Tensor:
        """What the rewards' scale is multiplied by, as the updates before say."""
        bound = math.log(LARGEST)
        moved = (torch.as_tensor(self.integral) - PROPORTIONAL * self.error).clamp(-bound, bound).exp()
        return torch.where(torch.as_tensor(self.pulled) > REST, moved, 1.0)

    def state_dict(self) -> dict[str, Tensor | float]:
        return {"kl": self.kl, "updates": self.updates, "pulled": self.pulled, "integral": self.integral}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave; nothing starts afresh."""
        vars(self).update(state)
