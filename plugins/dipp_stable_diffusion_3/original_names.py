"""Stable Diffusion 3's transformer in the names of its own code (github.com/Stability-AI/sd3.5).

A block there has a part for the image, `x_block`, and one for the prompt, `context_block`; query, key and value are one
layer. Of the last block's context and of the last layer the modulation is shift and scale, and diffusers has scale and
shift.
"""

from __future__ import annotations

import re
from typing import Any, cast

import torch
from torch import Tensor, nn

from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.original_layout.names import halves_swapped

OUTSIDE = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
IN_A_BLOCK = {
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
JOINED = {
    "attn.to_q": ("x_block.attn.qkv", ("attn.to_q", "attn.to_k", "attn.to_v")),
    "attn.add_q_proj": ("context_block.attn.qkv", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
    "attn2.to_q": ("x_block.attn2.qkv", ("attn2.to_q", "attn2.to_k", "attn2.to_v")),
}
"""One layer there, by the first of the layers here that it is made of."""
BLOCK = re.compile(r"transformer_blocks\.(\d+)\.(.+)")


def original_transformer(network: nn.Module) -> dict[str, Tensor]:
    """The transformer's tensors under their original names.

    Args:
        network: an `SD3Transformer2DModel`.

    Raises:
        RequestError: the original code has no name for one of its layers.
    """
    tensors = network.state_dict()
    last = cast(Any, network).config.num_layers - 1
    later = {part for _, parts in JOINED.values() for part in parts[1:]}
    renamed = {}
    for name, tensor in tensors.items():
        match = BLOCK.fullmatch(name)
        layer, _, kind = (match[2] if match else name).rpartition(".")
        if match is None:
            theirs = OUTSIDE.get(name) or (f"{OUTSIDE[layer]}.{kind}" if layer in OUTSIDE else None)
            value = halves_swapped(tensor) if layer == "norm_out.linear" else tensor
        elif layer in JOINED:
            inner, parts = JOINED[layer]
            theirs = f"joint_blocks.{match[1]}.{inner}.{kind}"
            value = torch.cat([tensors[f"transformer_blocks.{match[1]}.{part}.{kind}"] for part in parts])
        elif layer in later:
            continue
        else:
            theirs = f"joint_blocks.{match[1]}.{IN_A_BLOCK[layer]}.{kind}" if layer in IN_A_BLOCK else None
            swapped = layer == "norm1_context.linear" and int(match[1]) == last
            value = halves_swapped(tensor) if swapped else tensor
        if theirs is None:
            raise RequestError(f"The transformer has '{name}', which Stable Diffusion 3's own layout has no name for.")
        renamed[theirs] = value
    return renamed
