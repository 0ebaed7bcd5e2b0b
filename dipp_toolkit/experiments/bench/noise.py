"""Noise that belongs to a prompt and a seed, whatever else is generated beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def noise_of(prompts: Sequence[str], seeds: Sequence[int], shape: tuple[int, ...]) -> Float[Tensor, "count ..."]:
    """Standard normal noise, one of `shape` for each prompt and seed: `(N, *shape)`, on the CPU.

    The random generator is seeded with a digest of prompt and seed, so that an image does not depend on the size of
    the set, its order, or which process makes it; generators with one latent shape are given the same noise.
    """
    rows = []
    for prompt, seed in zip(prompts, seeds, strict=True):
        digest = hashlib.sha256(f"{seed}\0{prompt}".encode()).digest()
        rows.append(torch.randn(shape, generator=torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))))
    return torch.stack(rows)
