"""PixArt-alpha's transformer under the names of the code that it was published with (github.com/PixArt-alpha).

Checkpoints of that code, such as SIM's one-step PixArt, have these names. diffusers converts them by a script of its
repository alone, which is in no package, so that it is done here, both ways.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from dipp_toolkit.errors import RequestError

MARK = "cross_attn.kv_linear."
"""Part of a name that no other published transformer has."""
NAMES = {
    "x_embedder.proj": "pos_embed.proj",
    "y_embedder.y_proj.fc1": "caption_projection.linear_1",
    "y_embedder.y_proj.fc2": "caption_projection.linear_2",
    "t_embedder.mlp.0": "adaln_single.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "adaln_single.emb.timestep_embedder.linear_2",
    "csize_embedder.mlp.0": "adaln_single.emb.resolution_embedder.linear_1",
    "csize_embedder.mlp.2": "adaln_single.emb.resolution_embedder.linear_2",
    "ar_embedder.mlp.0": "adaln_single.emb.aspect_ratio_embedder.linear_1",
    "ar_embedder.mlp.2": "adaln_single.emb.aspect_ratio_embedder.linear_2",
    "t_block.1": "adaln_single.linear",
    "final_layer.linear": "proj_out",
    "final_layer": "",
}
"""Parts of the network, with those that diffusers calls otherwise."""
OF_A_BLOCK = {
    "attn.proj": "attn1.to_out.0",
    "cross_attn.q_linear": "attn2.to_q",
    "cross_attn.proj": "attn2.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
    "": "",
}
JOINED = {
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "cross_attn.kv_linear": ("attn2.to_k", "attn2.to_v"),
}
"""What one layer makes at once there, and two or three in diffusers."""
NOT_TRAINED = ("pos_embed", "y_embedder.y_embedding")
"""The positions, which follow from the size, and the empty caption's embedding, which T5 makes in diffusers."""
BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
OWN_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.(.+)")
TABLE = "scale_shift_table"


def from_published_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """A transformer's tensors under diffusers' names; None where these are not the published code's.

    Args:
        tensors: by name; what stands before each of the names is taken off.
    """
    marked = next((name for name in tensors if MARK in name and "blocks." in name), None)
    if marked is None:
        return None
    prefix = marked[: marked.index("blocks.")]
    renamed: dict[str, Tensor] = {}
    for long_name, tensor in tensors.items():
        name = long_name.removeprefix(prefix)
        block = BLOCK.fullmatch(name)
        part, _, kind = (block[2] if block else name).rpartition(".")
        before = f"transformer_blocks.{block[1]}." if block else ""
        if name in NOT_TRAINED:
            continue
        if block and part in JOINED:
            cut = tensor.chunk(len(JOINED[part]))
            renamed |= {f"{before}{ours}.{kind}": rows for ours, rows in zip(JOINED[part], cut, strict=True)}
            continue
        ours = (OF_A_BLOCK if block else NAMES).get(part)
        renamed[name if ours is None else f"{before}{ours}.{kind}" if ours else f"{before}{kind}"] = tensor
    return renamed


def to_published_names(network: nn.Module) -> dict[str, Tensor]:
    """A transformer's tensors under the names of the code that PixArt-alpha was published with.

    The positions are among them, which programs take an image's size from. The empty caption's embedding is not: it was
    there to be dropped in training, and T5 makes it in diffusers.

    Args:
        network: a `PixArtTransformer2DModel`.

    Raises:
        RequestError: the published code has no name for one of its layers.
    """
    tensors = network.state_dict()
    outside = {ours: theirs for theirs, ours in NAMES.items() if ours}
    inside = {ours: theirs for theirs, ours in OF_A_BLOCK.items() if ours}
    joined = {parts[0]: (theirs, parts) for theirs, parts in JOINED.items()}
    later = {part for parts in JOINED.values() for part in parts[1:]}
    renamed = {NOT_TRAINED[0]: cast(Any, network).pos_embed.pos_embed}
    for name, tensor in tensors.items():
        block = OWN_BLOCK.fullmatch(name)
        part, _, kind = (block[2] if block else name).rpartition(".")
        before = f"blocks.{block[1]}." if block else ""
        if name == TABLE:
            renamed[f"final_layer.{TABLE}"] = tensor
        elif block and not part:
            renamed[f"{before}{kind}"] = tensor
        elif block and part in joined:
            theirs, parts = joined[part]
            here = name.removesuffix(f"{part}.{kind}")
            renamed[f"{before}{theirs}.{kind}"] = torch.cat([tensors[f"{here}{own}.{kind}"] for own in parts])
        elif block and part in later:
            continue
        elif part in (names := inside if block else outside):
            renamed[f"{before}{names[part]}.{kind}"] = tensor
        elif name != "pos_embed.pos_embed":
            raise RequestError(f"The transformer has '{name}', which PixArt-alpha's own layout has no name for.")
    return renamed
