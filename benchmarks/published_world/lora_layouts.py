"""LoRA files in the keys of the programs that write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

Lora = Mapping[str, tuple[Tensor, Tensor]]
"""Down `(rank, in)` and up `(out, rank)` by the name of a linear layer."""
ALPHA = 2.0
"""Of files that note it: kohya's beside every layer, peft's in their configuration."""
SIZE = 0.1
PLACES = (".attn", ".attention.", ".ff.", ".feed_forward.")


def random_lora(state: Mapping[str, Tensor], rank: int) -> Lora:
    """Pairs for the linear layers of attention and of feed-forward blocks."""
    random = torch.Generator().manual_seed(5)
    layers = {
        name.removesuffix(".weight"): weight.shape
        for name, weight in state.items()
        if name.endswith(".weight") and weight.ndim == 2 and any(place in name for place in PLACES)
    }
    return {
        name: (
            SIZE * torch.randn(rank, inside, generator=random),
            SIZE * torch.randn(outside, rank, generator=random),
        )
        for name, (outside, inside) in layers.items()
    }


def write_kohya(lora: Lora, path: Path, component: str) -> None:
    """`lora_unet_down_blocks_0_..._to_q.lora_down.weight`, with an `alpha` a layer."""
    _write_underscored(lora, path, f"lora_{component}_")


def write_videox(lora: Lora, path: Path, component: str) -> None:
    """`lora_unet__layers_0_attention_to_q.lora_down.weight`, kohya's but for an underscore: VideoX-Fun's."""
    _write_underscored(lora, path, "lora_unet__")


def _write_underscored(lora: Lora, path: Path, prefix: str) -> None:
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in lora.items():
        key = prefix + name.replace(".", "_")
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(ALPHA)}
    save_file(tensors, path)


def write_plain(lora: Lora, path: Path, component: str) -> None:
    """`transformer_blocks.0.attn.to_q.lora_down.weight`, with an `alpha` a layer: Qwen-Image-Lightning's."""
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in lora.items():
        halves = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        tensors |= {**halves, f"{name}.alpha": torch.tensor(ALPHA)}
    save_file(tensors, path)


def write_diffusers(lora: Lora, path: Path, component: str) -> None:
    """`unet.down_blocks.0....to_q.lora_A.weight`, as `save_lora_weights` names them."""
    save_file(_halves(lora, f"{component}."), path, {"format": "pt"})


def write_peft(lora: Lora, path: Path, component: str) -> None:
    """`base_model.model.down_blocks.0....to_q.lora_A.weight`, as `PeftModel.save_pretrained` names them.

    Their strength is in `adapter_config.json` beside them.
    """
    from peft import LoraConfig

    save_file(_halves(lora, "base_model.model."), path)
    rank = len(next(iter(lora.values()))[0])
    LoraConfig(r=rank, lora_alpha=int(ALPHA), target_modules=list(lora)).save_pretrained(str(path.parent))


def _halves(lora: Lora, prefix: str) -> dict[str, Tensor]:
    halves = ((name, *half) for name, pair in lora.items() for half in zip("AB", pair, strict=True))
    return {f"{prefix}{name}.lora_{half}.weight": tensor.contiguous() for name, half, tensor in halves}
