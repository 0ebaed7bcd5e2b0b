"""Which attention kernel a CPU uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

LARGEST_UNFUSED = 16
"""Latent side up to which attention on a CPU is not fused."""


@contextmanager
def unfused_cpu_attention(device: torch.device, latent_shape: tuple[int, ...]) -> Iterator[None]:
    """On a CPU, small attention by matrix products: the fused kernel's backward is a quarter of a small DiT's step.

    Larger latents keep the fused kernel, which never holds the matrix of all pairs of tokens.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if device.type != "cpu" or max(latent_shape) > LARGEST_UNFUSED:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield
