"""A LoRA in the keys by which ComfyUI finds layers: kohya's for UNets, and diffusers' for transformers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def comfy_lora(
    tensors: Mapping[str, Tensor], alpha: float, rank: int, component: str, kohya: bool, dtype: torch.dtype
) -> dict[str, Tensor]:
    r"""The tensors under ComfyUI's keys, with $\frac{a}{r} B$ for $B$, so that no strength has to be read beside them.

    Args:
        tensors: `LAYER.lora_A.weight` and `LAYER.lora_B.weight`.
        alpha: $a$.
        rank: $r$.
        component: the network's name in diffusers' keys.
        kohya: whether the keys are kohya's.
        dtype: of the result.
    """
    renamed = {}
    for name, tensor in tensors.items():
        layer, _, half = name.removesuffix(".weight").rpartition(".lora_")
        value = tensor.float() * (alpha / rank) if half == "B" else tensor
        if kohya:
            key = f"lora_unet_{layer.replace('.', '_')}.lora_{'up' if half == 'B' else 'down'}.weight"
        else:
            key = f"{component}.{layer}.lora_{half}.weight"
        renamed[key] = value.to(dtype).contiguous()
    return renamed
