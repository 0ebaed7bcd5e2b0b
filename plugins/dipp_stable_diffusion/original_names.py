"""Stable Diffusion's UNet in the names of its own code (github.com/CompVis/stable-diffusion).

There a UNet is one list of blocks on the way down and one on the way up, and a block is a list of layers: a residual
block, attention where there is any, a change of resolution. With L residual blocks a level, level l begins at
`input_blocks.{1 + l (L + 1)}` and `output_blocks.{l (L + 1)}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.original_layout.names import replaced

OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESIDUAL = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
BLOCK = re.compile(
    r"(?P<way>down_blocks|up_blocks|mid_block)\.(?:(?P<level>\d+)\.)?(?P<kind>\w+)\.(?P<index>\d+)\.(?P<rest>.+)"
)


def original_unet(network: nn.Module) -> dict[str, Tensor]:
    """The UNet's tensors under their original names.

    Args:
        network: a `UNet2DConditionModel`.

    Raises:
        RequestError: the original code has no name for one of its layers, such as a consistency model's guidance.
    """
    layers = cast(Any, network).config.layers_per_block
    tensors = network.state_dict()
    if not isinstance(layers, int):
        raise RequestError(
            f"The UNet has {layers} residual blocks a level; the original layout has the same number in each."
        )
    renamed = {}
    for name, tensor in tensors.items():
        theirs = _original_name(name, layers, tensors)
        if theirs is None:
            raise RequestError(
                f"The UNet has '{name}', which the original layout has no name for. Export it as a LoRA (--to lora), "
                "or use the folder final/ itself, which diffusers loads."
            )
        renamed[theirs] = tensor
    return renamed


def _original_name(name: str, layers: int, tensors: Mapping[str, Tensor]) -> str | None:
    layer, _, kind = name.rpartition(".")
    if layer in OUTSIDE:
        return f"{OUTSIDE[layer]}.{kind}"
    match = BLOCK.fullmatch(name)
    if match is None:
        return None
    what, index, rest = match["kind"], int(match["index"]), match["rest"]
    attends = int(what == "attentions")
    rest = replaced(rest, RESIDUAL) if what == "resnets" else rest
    if match["way"] == "mid_block":
        return f"middle_block.{2 * index + attends}.{rest}"
    first = int(match["level"]) * (layers + 1)
    if match["way"] == "down_blocks":
        place, inside = 1 + first + index, attends
        if what == "downsamplers":
            place, inside, rest = 1 + first + layers, 0, rest.replace("conv.", "op.", 1)
        return f"input_blocks.{place}.{inside}.{rest}"
    place, inside = first + index, attends
    if what == "upsamplers":
        place = first + layers
        inside = 1 + any(other.startswith(f"up_blocks.{match['level']}.attentions.") for other in tensors)
    return f"output_blocks.{place}.{inside}.{rest}"
