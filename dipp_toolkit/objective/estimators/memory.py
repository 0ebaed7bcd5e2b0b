"""Scored samples that a surrogate learns from, and the pairs of one prompt among them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..advantages import least_deviation

KEYS, SCORES = "keys", "scores"
"""Names of the rows that say whose sample it is, and how it was scored."""
Rows = dict[str, Tensor]
"""Tensors with a row a sample, by name."""


def prompt_key(prompt: str, readout: int = 0) -> int:
    """The same number for the same prompt, also in a resumed run: 63 bits of a BLAKE2b digest.

    Args:
        prompt: the text.
        readout: which of the generator's steps made the sample: those of different steps are not paired.
    """
    digest = hashlib.blake2b(f"{readout}\0{prompt}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def joined_rows(parts: Sequence[Rows]) -> Rows:
    """Rows of all parts, one after the other."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}


def chosen_rows(rows: Rows, index: Sequence[int]) -> Rows:
    """These rows, in the order given; nothing where none is chosen."""
    return {name: tensor[list(index)] for name, tensor in rows.items()} if index else {}


def neighbours(keys: Sequence[int]) -> tuple[list[int], list[int]]:
    """Both sides of the pairs that a batch holds: each sample with the next one of the same prompt.

    Of $k$ samples of a prompt that makes $k - 1$ pairs, as many as there are independent differences.
    """
    latest: dict[int, int] = {}
    pairs = []
    for place, key in enumerate(keys):
        if key in latest:
            pairs.append((latest[key], place))
        latest[key] = place
    return [first for first, _ in pairs], [second for _, second in pairs]


@dataclass(frozen=True)
class Pairs:
    """Which samples of a memory have the same prompt.

    Attributes:
        same: whether two samples are a pair; symmetric, none is its own.
        deviation: of a score within its prompt.
    """

    same: Bool[Tensor, "rows rows"]
    deviation: Float[Tensor, ""]

    @classmethod
    def among(cls, rows: Rows) -> Pairs:
        r"""Of scores $s_i$ it is $\sigma^2 = \tfrac12 E_i E_{j \sim i} (s_i - s_j)^2$, over samples with a partner."""
        same = rows[KEYS][:, None] == rows[KEYS][None]
        same.fill_diagonal_(False)
        squares = (rows[SCORES][:, None] - rows[SCORES][None]).square() * same
        partners = same.sum(1)
        variance = (squares.sum(1) / partners.clamp_min(1)).sum() / (2 * (partners > 0).sum().clamp_min(1))
        return cls(same, variance.sqrt())

    def draw(self, count: int, random: torch.Generator) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        """Both sides of pairs: samples that have a partner, none twice as the first, each with one of its partners.

        Args:
            count: of pairs; fewer where the memory is smaller. Where too few samples have a partner, the others come
                with themselves.
            random: on the memory's device.
        """
        size, device = len(self.same), self.same.device
        places = torch.rand(size, generator=random, device=device)
        first = places.masked_fill(~self.same.any(1), -1).topk(min(count, size)).indices
        partners = self.same[first]
        draws = torch.rand(partners.shape, generator=random, device=device).masked_fill(~partners, -1)
        return first, torch.where(partners.any(1), draws.argmax(1), first)


@dataclass(frozen=True)
class Groups:
    r"""The samples of each prompt in a memory, and where each stands among them.

    Attributes:
        number: of each sample's prompt, from 0.
        advantages: $(s_i - m) / d$ with the mean and the deviation of the scores of its prompt.
        heard: whether that says anything: not where a prompt has one sample, or scores that do not differ.
    """

    number: Int[Tensor, " rows"]
    advantages: Float[Tensor, " rows"]
    heard: Bool[Tensor, " rows"]

    @classmethod
    def among(cls, rows: Rows) -> Groups:
        """Of all rows."""
        same, scores = rows[KEYS][:, None] == rows[KEYS][None], rows[SCORES]
        count = same.sum(1)
        mean = torch.where(same, scores, 0).sum(1) / count
        deviation = (torch.where(same, (scores - mean[:, None]).square(), 0).sum(1) / count).sqrt()
        heard = deviation > least_deviation(torch.where(same, scores.abs(), 0).amax(1))
        advantages = torch.where(heard, (scores - mean) / deviation, 0)
        return cls(torch.unique(rows[KEYS], return_inverse=True)[1], advantages, heard)

    def draw(self, count: int, random: torch.Generator) -> Int[Tensor, " samples"]:
        """Samples prompt by prompt, prompts and the samples of each in random order: all of a prompt, where there is
        room, before the next. Groups that say nothing come last.

        Args:
            count: of samples; fewer where the memory is smaller.
            random: on the memory's device.
        """
        size, device = len(self.number), self.number.device
        prompts, places = torch.rand(2, size, generator=random, device=device, dtype=torch.float64)
        return (2.0 * ~self.heard + prompts[self.number] + places / size**2).argsort()[:count]


@dataclass
class Memory:
    """The newest scored samples, a ring of fixed size; rows are overwritten oldest first.

    Attributes:
        size: of the ring.
        tensors: the ring itself, by name.
        count: samples that were ever taken in.
    """

    size: int = 2048
    tensors: Rows = field(default_factory=dict)
    count: int = 0

    def add(self, new: Rows) -> None:
        """Take rows in, the same number of each name."""
        length = len(next(iter(new.values()), ()))
        kept = min(length, self.size)
        places = torch.arange(self.count + length - kept, self.count + length) % self.size
        for name, tensor in new.items():
            if name not in self.tensors:
                self.tensors[name] = tensor.new_zeros(self.size, *tensor.shape[1:])
            self.tensors[name][places.to(tensor.device)] = tensor[length - kept :]
        self.count += length

    def __len__(self) -> int:
        return min(self.count, self.size)

    @property
    def rows(self) -> Rows:
        """What it holds."""
        return {name: tensor[: len(self)] for name, tensor in self.tensors.items()}
