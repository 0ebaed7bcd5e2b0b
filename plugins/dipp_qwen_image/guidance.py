r"""Qwen-Image's guidance: the direction of $v_\emptyset + g (v_c - v_\emptyset)$, as long as $v_c$.

The length is that of a token, 64 numbers of a patch of two by two positions of a latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dipp_toolkit.models.stock_call import StockCall, pack, unpack

PATCH = 2


@dataclass(frozen=True)
class QwenImageStockCall(StockCall):
    """What Qwen-Image's pipeline does with its scheduler and its two passes."""

    guidance_argument: str = "true_cfg_scale"

    def guided(self, given: Tensor, empty: Tensor, guidance: float) -> Tensor:
        tokens, combined = pack(given, PATCH), pack(super().guided(given, empty, guidance), PATCH)
        scale = tokens.norm(dim=-1, keepdim=True) / combined.norm(dim=-1, keepdim=True)
        return unpack(combined * scale, given.shape, PATCH)

    def guidance_arguments(self, guidance: float, prompts: int) -> dict[str, Any]:
        """The pipeline guides only where it is told what against, and wants that of every prompt."""
        given = super().guidance_arguments(guidance, prompts)
        return given | {"negative_prompt": [""] * prompts} if guidance > 1 else given
