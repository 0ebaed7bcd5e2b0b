r"""Which prompts each step sees: shuffled epochs, a function of seed and position alone, so resuming needs no state.

Up to `LISTED` prompts an epoch is torch's permutation. Of more it is computed index by index, without a list: the index
is written as two halves of $b$ bits, and each of `ROUNDS` rounds of a Feistel network makes
$(l, r) \to (r, l \oplus F_k(r))$ of them, $F_k$ a mixing function with a key. That permutes all $2^{2b}$ numbers of
two halves. Where it leads out of the set it is applied again until it is back, so that it permutes the set's indices.

Why not torch's permutation for all: that of a hundred million prompts takes 800 MB and seconds in every process, at
every epoch and every resume, to look up the few positions of a batch; and runs of so many prompts that began with this
order go on with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

LISTED = 2**16
ROUNDS = 8


@lru_cache(maxsize=4)
def _epoch(count: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(count, generator=generator).tolist()


@lru_cache(maxsize=4)
def _keys(count: int, seed: int, epoch: int) -> np.ndarray:
    digest = hashlib.blake2b(f"{count} {seed} {epoch}".encode(), digest_size=8 * ROUNDS).digest()
    return np.frombuffer(digest, "<u8")


def _mixed(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: every bit of the result depends on every bit of the value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def permuted(positions: np.ndarray, count: int, keys: np.ndarray) -> np.ndarray:
    """What stands at these positions of an epoch of `count` prompts."""
    half = np.uint64(((count - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << int(half)) - 1)
    values = positions.astype(np.uint64)
    out = np.ones(len(values), bool)
    while out.any():
        left, right = values[out] >> half, values[out] & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right + key) & mask)
        values[out] = left << half | right
        out = values >= count
    return values.astype(np.int64)


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
        return self.at(range(start, start + length))

    def at(self, positions: Sequence[int]) -> list[int]:
        """The indices at these positions of the sequence."""
        epochs, places = np.divmod(np.asarray(positions, np.int64), self.count)
        indices = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs).tolist():
            within = epochs == epoch
            if self.count <= LISTED:
                order = _epoch(self.count, self.seed, epoch)
                indices[within] = [order[place] for place in places[within].tolist()]
            else:
                indices[within] = permuted(places[within], self.count, _keys(self.count, self.seed, epoch))
        return indices.tolist()


@dataclass(frozen=True)
class NoisesOfPrompts:
    """Prompts that stand several times in a row, each sample with a noise of its own, from one batch into the next.

    Where a batch ends before a prompt has all its noises, the next one begins with it: a batch of one sample has the
    same prompt as the batch before, or a new one.

    Attributes:
        each: noises a prompt.
        position: of the last prompt in the sequence of prompts.
        owed: noises that it has yet to be given.
    """

    each: int = 1
    position: int = 0
    owed: int = 0

    def take(self, start: int, length: int) -> tuple[list[int], NoisesOfPrompts]:
        """The positions of a batch's prompts, and what is owed after it; new prompts are those from `start` on."""
        carried = min(self.owed, length)
        places = [self.position] * carried + [start + k // self.each for k in range(length - carried)]
        if carried == length:
            return places, NoisesOfPrompts(self.each, self.position, self.owed - carried)
        return places, NoisesOfPrompts(self.each, places[-1], -(length - carried) % self.each)

    def new_prompts(self, length: int) -> int:
        """How many prompts a batch takes anew."""
        return -(-max(length - self.owed, 0) // self.each)

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint holds of it."""
        return {"each": self.each, "position": self.position, "owed": self.owed}

    @classmethod
    def from_state(cls, state: Mapping[str, int]) -> NoisesOfPrompts:
        """As `state_dict` says."""
        return cls(state["each"], state["position"], state["owed"])
