"""Flux's transformer in the names of its own code (github.com/black-forest-labs/flux).

Query, key and value are one layer there, in single blocks with the first layer of the perceptron below them. Of the
last layer the modulation is shift and scale, and diffusers has scale and shift.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.original_layout.names import halves_swapped

OUTSIDE = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
SINGLE = {
    "norm.linear": "modulation.lin",
    "attn.norm_q": "norm.query_norm",
    "attn.norm_k": "norm.key_norm",
    "proj_out": "linear2",
}
DOUBLE_JOINED = {
    "attn.to_q": ("img_attn.qkv", ("attn.to_q", "attn.to_k", "attn.to_v")),
    "attn.add_q_proj": ("txt_attn.qkv", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
}
SINGLE_JOINED = {"attn.to_q": ("linear1", ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"))}
"""One layer there, by the first of the layers here that it is made of."""
LATER = {
    part for joined in (DOUBLE_JOINED, SINGLE_JOINED) for _, parts in joined.values() for part in parts[1:]
}  # fmt: skip
BLOCK = re.compile(r"(single_)?transformer_blocks\.(\d+)\.(.+)")


def original_transformer(network: nn.Module) -> dict[str, Tensor]:
    """The transformer's tensors under their original names.

    Args:
        network: a `FluxTransformer2DModel`.

    Raises:
        RequestError: the original code has no name for one of its layers.
    """
    tensors = network.state_dict()
    renamed = {}
    for name, tensor in tensors.items():
        match = BLOCK.fullmatch(name)
        layer, _, kind = (match[3] if match else name).rpartition(".")
        value = halves_swapped(tensor) if layer == "norm_out.linear" else tensor
        if match is None:
            names, before = OUTSIDE, ""
        else:
            names, before = (SINGLE, "single_blocks") if match[1] else (DOUBLE, "double_blocks")
            before = f"{before}.{match[2]}."
            joined = SINGLE_JOINED if match[1] else DOUBLE_JOINED
            if layer in joined:
                theirs, parts = joined[layer]
                here = name.removesuffix(f"{layer}.{kind}")
                renamed[f"{before}{theirs}.{kind}"] = torch.cat([tensors[f"{here}{part}.{kind}"] for part in parts])
                continue
            if layer in LATER:
                continue
        if layer not in names:
            raise RequestError(f"The transformer has '{name}', which Flux's own layout has no name for.")
        kind = "scale" if names[layer].endswith(("query_norm", "key_norm")) else kind
        renamed[f"{before}{names[layer]}.{kind}"] = value
    return renamed
