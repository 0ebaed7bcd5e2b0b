"""Noise that belongs to a prompt and a seed, whatever else is generated beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ...distributed.shared_draws import digest_seed


def noise_of(prompts: Sequence[str], seeds: Sequence[int], shape: tuple[int, ...]) -> Float[Tensor, "count ..."]:
    """Standard normal noise, one of `shape` for each prompt and seed: `(N, *shape)`, on the CPU.

    The random generator is seeded with a digest of prompt and seed, so that an image does not depend on the size of
    the set, its order, or which process makes it; generators with one latent shape are given the same noise.
    """
    digests = (digest_seed(f"{seed}\0{prompt}".encode()) for prompt, seed in zip(prompts, seeds, strict=True))
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(digest)) for digest in digests])
