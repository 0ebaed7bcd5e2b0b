"""An `AutoencoderKL` in the names of latent diffusion's own code (github.com/CompVis/latent-diffusion).

Stable Diffusion 1, 2, XL and 3 and Flux all have its names. Its attention is made of convolutions of one by one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .names import replaced

LAYERS = {"conv_shortcut": "nin_shortcut", "conv_norm_out": "norm_out"}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
PROJECTION = re.compile(r"(encoder|decoder)\.mid\.attn_1\.(q|k|v|proj_out)\.weight")
BLOCK = re.compile(r"(?P<half>encoder|decoder)\.(?:down|up)_blocks\.(?P<block>\d+)\.(?P<kind>\w+)\.(?P<rest>.+)")
MIDDLE = re.compile(r"(?P<half>encoder|decoder)\.mid_block\.(?P<kind>\w+)\.(?P<index>\d+)\.(?P<rest>.+)")


def original_autoencoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under their original names.

    Args:
        tensors: of a diffusers `AutoencoderKL`.
    """
    last = max(int(match["block"]) for name in tensors if (match := BLOCK.fullmatch(name)) is not None)
    renamed = {}
    for name, tensor in tensors.items():
        theirs = _original_name(name, last)
        is_projection = PROJECTION.fullmatch(theirs) and tensor.ndim == 2
        renamed[theirs] = tensor[:, :, None, None] if is_projection else tensor
    return renamed


def _original_name(name: str, last: int) -> str:
    """The name there of a tensor of an autoencoder whose blocks are numbered up to `last`."""
    middle = MIDDLE.fullmatch(name)
    if middle is not None:
        part = (
            f"attn_{int(middle['index']) + 1}"
            if middle["kind"] == "attentions"
            else f"block_{int(middle['index']) + 1}"
        )
        rest = replaced(middle["rest"], ATTENTION if middle["kind"] == "attentions" else LAYERS)
        return f"{middle['half']}.mid.{part}.{rest}"
    block = BLOCK.fullmatch(name)
    if block is None:
        return replaced(name, LAYERS)
    # The decoder's blocks are numbered by their resolution there, so that the last one comes first.
    level = f"down.{block['block']}" if block["half"] == "encoder" else f"up.{last - int(block['block'])}"
    if block["kind"] == "resnets":
        return f"{block['half']}.{level}.block.{replaced(block['rest'], LAYERS)}"
    sampler = "downsample" if block["half"] == "encoder" else "upsample"
    return f"{block['half']}.{level}.{sampler}.{block['rest'].removeprefix('0.')}"
