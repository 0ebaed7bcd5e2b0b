"""LoRA files for tests, in the layouts of the programs that write them: random pairs, key by key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dipp_toolkit.models.tiny_pipelines import write_twin

Pairs = Mapping[str, tuple[Tensor, Tensor]]


def twins_below(root: Path) -> Callable[[str], Path]:
    """Twins by the name of their pipeline class, each written when it is first asked for."""

    def twin(name: str) -> Path:
        return root / name if (root / name).exists() else write_twin(name, root / name)

    return twin


def random_pairs(network: nn.Module, rank: int, pattern: str = ".*", seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of the linear and convolution layers whose names a pattern finds."""
    generator = torch.Generator().manual_seed(seed)
    pairs = {}
    for name, layer in network.named_modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d) or not re.search(pattern, name):
            continue
        out, inside, *kernel = layer.weight.shape
        down = 0.1 * torch.randn((rank, inside, *kernel), generator=generator)
        up = 0.1 * torch.randn((out, rank, *(1 for _ in kernel)), generator=generator)
        pairs[name] = (down, up)
    assert pairs
    return pairs


def added(weights: Mapping[str, Tensor], pairs: Pairs, strength: float) -> dict[str, Tensor]:
    """Weights with `strength` B A added to each layer, by the definition."""
    result = {name: weight.clone() for name, weight in weights.items()}
    for name, (down, up) in pairs.items():
        result[f"{name}.weight"] += strength * torch.einsum("or...,ri...->oi...", up.flatten(1), down)
    return result


def diffusers(pairs: Pairs, alpha: float, component: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `save_lora_weights` writes today: peft's halves below the component's name, the strength in the header."""
    rank = len(next(iter(pairs.values()))[0])
    noted = {f"{component}.r": rank, f"{component}.lora_alpha": alpha, f"{component}.target_modules": [*pairs]}
    tensors = {f"{component}.{name}": halve for name, halve in _halves(pairs).items()}
    return tensors, {"lora_adapter_metadata": json.dumps(noted)}


def diffusers_of_2023(pairs: Pairs, alpha: float, component: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """`lora.down` and `lora.up`; no strength is noted, so it is in the weights."""
    rank = len(next(iter(pairs.values()))[0])
    return {
        f"{component}.{name}.lora.{half}.weight": item * (alpha / rank if half == "up" else 1)
        for name, both in pairs.items()
        for half, item in zip(("down", "up"), both, strict=True)
    }, {}


def attention_processors(pairs: Pairs, alpha: float, component: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The first layout of diffusers, of attention's projections alone."""
    rank = len(next(iter(pairs.values()))[0])
    tensors = {}
    for name, (down, up) in pairs.items():
        attention, projection = name.removesuffix(".0").rsplit(".", 1)
        key = f"{component}.{attention}.processor.{projection}_lora"
        tensors |= {f"{key}.down.weight": down, f"{key}.up.weight": up * alpha / rank}
    return tensors, {}


def kohya(pairs: Pairs, alpha: float, component: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """kohya's sd-scripts over diffusers' names: `lora_unet_` and underscores, an alpha a layer."""
    return _kohya({name.replace(".", "_"): both for name, both in pairs.items()}, alpha)


def _kohya(pairs: Pairs, alpha: float) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors = {}
    for name, (down, up) in pairs.items():
        tensors |= {
            f"lora_unet_{name}.lora_down.weight": down,
            f"lora_unet_{name}.lora_up.weight": up,
            f"lora_unet_{name}.alpha": torch.tensor(alpha),
        }
    return tensors, {"ss_network_alpha": str(alpha)}


def kohya_sgm(pairs: Pairs, alpha: float, component: str, layers: int = 1) -> tuple[dict[str, Tensor], dict[str, str]]:
    """kohya's for SDXL, over the names of Stability's own UNet.

    Args:
        layers: the UNet's `layers_per_block`, the twin's where not said.
    """
    return _kohya({sgm_name(name, layers): both for name, both in pairs.items()}, alpha)


def kohya_sgm_of_two_layers(pairs: Pairs, alpha: float, component: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """`kohya_sgm` for the published SDXL."""
    return kohya_sgm(pairs, alpha, component, 2)


def sgm_name(name: str, layers: int) -> str:
    """Stability's name of a layer of diffusers' UNet, with underscores."""
    for ours, theirs in (
        ("conv_in", "input_blocks_0_0"), ("conv_out", "out_2"), ("time_embedding.linear_1", "time_embed_0"),
        ("time_embedding.linear_2", "time_embed_2"),
    ):  # fmt: skip
        if name == ours:
            return theirs
    match = re.fullmatch(r"(down_blocks|mid_block|up_blocks)\.(?:(\d+)\.)?(\w+)\.(\d+)\.(.*)", name)
    assert match is not None, name
    place, block, kind, index, rest = match.groups()
    rest = "op" if kind == "downsamplers" else rest
    for ours, theirs in (("conv1", "in_layers_2"), ("conv2", "out_layers_3"), ("time_emb_proj", "emb_layers_1"),
                         ("conv_shortcut", "skip_connection")):  # fmt: skip
        rest = theirs if kind == "resnets" and rest == ours else rest
    inner = {"resnets": 0, "attentions": 1}.get(kind)
    if place == "mid_block":
        where = f"middle_block_{1 if kind == 'attentions' else 2 * int(index)}"
    elif place == "down_blocks":
        number = 1 + int(block) * (layers + 1) + (int(index) if inner is not None else layers)
        where = f"input_blocks_{number}_{inner or 0}"
    else:
        number = int(block) * (layers + 1) + (int(index) if inner is not None else layers)
        where = f"output_blocks_{number}_{2 if inner is None else inner}"
    return f"{where}_{rest.replace('.', '_')}"


def peft_folder(folder: Path, pairs: Pairs, alpha: float, **settings: Any) -> Path:
    """What `PeftModel.save_pretrained` leaves: a configuration and keys below `base_model.model.`."""
    from peft import LoraConfig

    folder.mkdir(parents=True)
    rank = len(next(iter(pairs.values()))[0])
    LoraConfig(r=rank, lora_alpha=alpha, target_modules=[*pairs], **settings).save_pretrained(str(folder))  # type: ignore[arg-type]
    tensors = {f"base_model.model.{name}": halve for name, halve in _halves(pairs).items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def _halves(pairs: Pairs) -> dict[str, Tensor]:
    return {
        f"{name}.lora_{half}.weight": item.contiguous()
        for name, both in pairs.items()
        for half, item in zip("AB", both, strict=True)
    }


def write(path: Path, layout: Callable[..., tuple[dict[str, Tensor], dict[str, str]]], *arguments: Any) -> Path:
    """A file in a layout."""
    tensors, metadata = layout(*arguments)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt", **metadata}
    )
    return path


def flux_xlabs(pairs: Pairs, alpha: float, component: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """XLabs' for Flux, of the double blocks' attention; it knows no alpha."""
    rank = len(next(iter(pairs.values()))[0])
    streams = {"img": 1, "txt": 2}
    tensors = {}
    for name, (down, up) in _fused(pairs).items():
        match = re.fullmatch(r"double_blocks_(\d+)_(img|txt)_attn_(qkv|proj)", name)
        assert match is not None, name
        key = f"double_blocks.{match[1]}.processor.{match[3]}_lora{streams[match[2]]}"
        tensors |= {f"{key}.down.weight": down, f"{key}.up.weight": up * alpha / rank}
    return tensors, {}


def flux_kohya(pairs: Pairs, alpha: float, component: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """kohya's for Flux, over Black Forest Labs' names: projections of one kind are fused along their outputs.

    The layers of `pairs` that one projection holds share their A: that of the first.
    """
    return _kohya(_fused(pairs), alpha)


def _fused(pairs: Pairs) -> Pairs:
    grouped: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for theirs, ours in FLUX_NAMES:
        for name, both in pairs.items():
            match = re.fullmatch(ours, name)
            if match is not None:
                grouped.setdefault(theirs.format(match[1]), []).append(both)
    return {name: (parts[0][0], torch.cat([up for _, up in parts])) for name, parts in grouped.items()}


FLUX_NAMES: Sequence[tuple[str, str]] = (
    *(("double_blocks_{}_img_attn_qkv", rf"transformer_blocks\.(\d+)\.attn\.to_{item}") for item in "qkv"),
    *(("double_blocks_{}_txt_attn_qkv", rf"transformer_blocks\.(\d+)\.attn\.add_{item}_proj") for item in "qkv"),
    ("double_blocks_{}_img_attn_proj", r"transformer_blocks\.(\d+)\.attn\.to_out\.0"),
    ("double_blocks_{}_txt_attn_proj", r"transformer_blocks\.(\d+)\.attn\.to_add_out"),
    ("double_blocks_{}_img_mlp_0", r"transformer_blocks\.(\d+)\.ff\.net\.0\.proj"),
    ("double_blocks_{}_img_mlp_2", r"transformer_blocks\.(\d+)\.ff\.net\.2"),
    ("double_blocks_{}_txt_mlp_0", r"transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj"),
    ("double_blocks_{}_txt_mlp_2", r"transformer_blocks\.(\d+)\.ff_context\.net\.2"),
    ("double_blocks_{}_img_mod_lin", r"transformer_blocks\.(\d+)\.norm1\.linear"),
    ("double_blocks_{}_txt_mod_lin", r"transformer_blocks\.(\d+)\.norm1_context\.linear"),
    *(("single_blocks_{}_linear1", rf"single_transformer_blocks\.(\d+)\.{text}") for text in
      (r"attn\.to_q", r"attn\.to_k", r"attn\.to_v", "proj_mlp")),
    ("single_blocks_{}_linear2", r"single_transformer_blocks\.(\d+)\.proj_out"),
    ("single_blocks_{}_modulation_lin", r"single_transformer_blocks\.(\d+)\.norm\.linear"),
)  # fmt: skip
"""Black Forest Labs' name of each layer of diffusers' Flux, in the order in which fused ones stand."""


def shared_downs(pairs: Pairs) -> dict[str, tuple[Tensor, Tensor]]:
    """Pairs whose layers have the A of the first one that is in the same projection of Black Forest Labs'."""
    first: dict[str, Tensor] = {}
    shared = {}
    for name, (down, up) in pairs.items():
        theirs = next(
            theirs.format(match[1]) for theirs, ours in FLUX_NAMES if (match := re.fullmatch(ours, name)) is not None
        )
        shared[name] = (first.setdefault(theirs, down), up)
    return shared
