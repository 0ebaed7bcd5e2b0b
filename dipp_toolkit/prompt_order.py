"""Which prompts each step sees: shuffled epochs, a function of seed and position alone, so resuming needs no state."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch


@lru_cache(maxsize=4)
def _epoch(count: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(count, generator=generator).tolist()


@dataclass(frozen=True)
class PromptOrder:
    """An endless sequence of prompt indices; every epoch is a fresh permutation.

    Attributes:
        count: number of prompts.
        seed: of the permutations.
    """

    count: int
    seed: int

    def take(self, start: int, length: int) -> list[int]:
        """The indices at positions `start` to `start + length` of the sequence."""
        return [_epoch(self.count, self.seed, at // self.count)[at % self.count] for at in range(start, start + length)]
