"""Text encoders as checkpoints of one file hold them: CLIP's in transformers' own names or in OpenCLIP's, and T5."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from .names import replaced

Kind = Literal["clip", "open_clip", "t5"]
LAYER = re.compile(r"text_model\.encoder\.layers\.(\d+)\.(.+)")
OPEN_CLIP = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
IN_A_LAYER = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip
PROJECTION = "text_projection.weight"


def original_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's names of transformers before 5.6, which checkpoints have: everything but a projection in `text_model`."""
    return {
        name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}": tensor
        for name, tensor in tensors.items()
    }


def original_open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's names: the three projections of attention are one, and that of the pooled embedding is transposed."""
    tensors = original_clip(tensors)
    renamed = {}
    for name, tensor in tensors.items():
        layer = LAYER.fullmatch(name)
        if name == PROJECTION:
            renamed["text_projection"] = tensor.T
        elif layer is None:
            renamed[OPEN_CLIP.get(name, name)] = tensor
        elif layer[2].startswith("self_attn.q_proj."):
            kind = layer[2].rpartition(".")[2]
            rows = [tensors[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            renamed[f"transformer.resblocks.{layer[1]}.attn.in_proj_{kind}"] = torch.cat(rows)
        elif not layer[2].startswith(("self_attn.k_proj.", "self_attn.v_proj.")):
            renamed[f"transformer.resblocks.{layer[1]}.{replaced(layer[2], IN_A_LAYER)}"] = tensor
    return renamed


def original_t5(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """T5's encoder has transformers' names there too."""
    return dict(tensors)


RENAMED: Mapping[Kind, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "clip": original_clip,
    "open_clip": original_open_clip,
    "t5": original_t5,
}
