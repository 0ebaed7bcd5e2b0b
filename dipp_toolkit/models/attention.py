"""Which attention kernel a CPU uses in passes whose graph is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

LARGEST_UNFUSED = 256
"""Tokens up to which attention by matrix products is faster than the fused kernel, forward and backward together."""


@dataclass(frozen=True)
class GraphAttention:
    """On a CPU, attention in half precision by matrix products where a backward pass will follow.

    The fused kernel's backward takes three times as long there: a fifth of a small DiT's step. Passes without a graph,
    float32 and long sequences keep the fused kernel, which never holds the matrix of all pairs of tokens.

    Attributes:
        unfused: whether to.
    """

    unfused: bool = False

    @classmethod
    def chosen(
        cls, device: torch.device, precision: torch.dtype | None, network: nn.Module, latent_shape: tuple[int, ...]
    ) -> GraphAttention:
        """The choice for a network.

        Args:
            device: where it runs.
            precision: autocast dtype of its passes, None for none.
            network: its configuration gives the latents per token.
            latent_shape: of one latent.
        """
        patch = getattr(getattr(network, "config", None), "patch_size", None) or 1
        tokens = 1
        for side in latent_shape[1:]:
            tokens *= max(1, side // patch if isinstance(patch, int) else side)
        return cls(device.type == "cpu" and precision is not None and tokens <= LARGEST_UNFUSED)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Around a forward pass with a graph."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        if not self.unfused or not torch.is_grad_enabled():
            yield
            return
        kept = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
        # The switch is the CPU's, too, in spite of its name: without it the products are made in float32.
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
        try:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(kept)
