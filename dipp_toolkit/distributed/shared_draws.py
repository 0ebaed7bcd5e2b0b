r"""Random numbers of a batch that several passes or processes share.

A draw for a batch is made for the whole of it, everywhere from the same state of the same generator, and each pass
keeps its own rows. Two processes then train on the very noises and times that one process of the doubled batch would,
and their gradients average to its gradient.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def digest_seed(content: bytes) -> int:
    """A seed that is a function of these bytes alone: the first seven bytes of their SHA-256."""
    return int.from_bytes(hashlib.sha256(content).digest()[:7], "big")


class SharedDraws(torch.Generator):
    """The random source of one pass over a part of the batch.

    Used as any generator it draws numbers of this pass alone, different from all others'. What has a row a sample is
    drawn by `normal`, `uniform` and `permutation` of this module, from the generator that all passes share.

    Args:
        shared: in the same state in every process and, at its beginning, in every pass.
        start: first row of this pass in the whole batch.
        count: its rows.
        total: rows of the whole batch.
    """

    shared: torch.Generator
    start: int
    count: int
    total: int

    def __new__(cls, shared: torch.Generator, start: int, count: int, total: int) -> SharedDraws:
        made = super().__new__(cls, shared.device)  # type: ignore[call-arg]
        made.shared, made.start, made.count, made.total = shared, start, count, total
        made.manual_seed(digest_seed(shared.get_state().numpy().tobytes() + str(start).encode()))
        return made

    def __init__(self, shared: torch.Generator, start: int, count: int, total: int) -> None:
        super().__init__()


def shared_by_all(random: torch.Generator) -> torch.Generator:
    """The generator for what is one number for the whole batch, such as an order of rewards."""
    return random.shared if isinstance(random, SharedDraws) else random


def normal(shape: Sequence[int], random: torch.Generator, dtype: torch.dtype = torch.float32, rows: int = 0) -> Tensor:
    """Standard normal numbers on the generator's device.

    Args:
        shape: of this pass.
        random: the source.
        dtype: of the numbers.
        rows: the dimension that counts samples.
    """
    if not isinstance(random, SharedDraws):
        return torch.randn(tuple(shape), generator=random, device=random.device, dtype=dtype)
    whole = [*shape[:rows], random.total, *shape[rows + 1 :]]
    drawn = torch.randn(whole, generator=random.shared, device=random.device, dtype=dtype)
    return drawn.narrow(rows, random.start, shape[rows]).clone()


def uniform(batch: int, random: torch.Generator) -> Tensor:
    """Uniform numbers in [0, 1), `(batch,)`, one a sample."""
    if not isinstance(random, SharedDraws):
        return torch.rand(batch, generator=random, device=random.device)
    drawn = torch.rand(random.total, generator=random.shared, device=random.device)
    return drawn[random.start : random.start + batch]


def whole_number(limit: int, random: torch.Generator) -> int:
    """A whole number from 0 to below `limit`, one for the whole batch.

    On an accelerator the host draws it by itself, from the state that the generator is in: a number that the device
    has drawn would have to be waited for. The generator stays as it is then: draw something else before the next.
    """
    shared = shared_by_all(random)
    if shared.device.type != "cpu":
        shared = torch.Generator().manual_seed(digest_seed(shared.get_state().numpy().tobytes()))
    return int(torch.randint(limit, (), generator=shared))


def permutation(batch: int, random: torch.Generator) -> tuple[Tensor, int]:
    """This pass's part of a random order of the whole batch, `(batch,)`, and how long the whole is."""
    if not isinstance(random, SharedDraws):
        return torch.randperm(batch, generator=random, device=random.device), batch
    drawn = torch.randperm(random.total, generator=random.shared, device=random.device)
    return drawn[random.start : random.start + batch], random.total
