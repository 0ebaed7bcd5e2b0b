"""ImageReward's network on transformers' own BLIP modules, and the way there from the original checkpoint's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dipp_toolkit.models.blueprints import RewardBlueprint
from dipp_toolkit.rewards.preprocess import normalised
from dipp_toolkit.utils.deterministic import resized

HEAD = (768, 1024, 128, 64, 16, 1)
TOKENS = 35


@dataclass(frozen=True)
class Sizes:
    """What decides the architecture; the defaults are ImageReward v1.0's."""

    image: int = 224
    patch: int = 16
    vision_width: int = 1024
    vision_layers: int = 24
    vision_heads: int = 16
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    vocabulary: int = 30524
    head: tuple[int, ...] = HEAD

    def with_text(self, config: Mapping[str, Any]) -> Sizes:
        """With what the original's `med_config.json` says of the text network."""
        return replace(
            self,
            text_width=int(config["hidden_size"]),
            text_layers=int(config["num_hidden_layers"]),
            text_heads=int(config["num_attention_heads"]),
            vocabulary=int(config["vocab_size"]),
        )


class ImageRewardNetwork(nn.Module):
    """Image tokens, a text that attends to them, and on its first token five linear layers with nothing in between.

    Args:
        sizes: of the architecture.
    """

    def __init__(self, sizes: Sizes | None = None) -> None:
        super().__init__()
        from transformers import BlipTextConfig, BlipVisionConfig
        from transformers.models.blip.modeling_blip import BlipVisionModel
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        sizes = sizes or Sizes()
        self.vision: Any = BlipVisionModel(
            BlipVisionConfig(
                hidden_size=sizes.vision_width, intermediate_size=4 * sizes.vision_width,
                num_hidden_layers=sizes.vision_layers, num_attention_heads=sizes.vision_heads,
                patch_size=sizes.patch, image_size=sizes.image, layer_norm_eps=1e-6,
            )
        )  # fmt: skip
        self.text: Any = BlipTextModel(
            BlipTextConfig(
                vocab_size=sizes.vocabulary, hidden_size=sizes.text_width, encoder_hidden_size=sizes.vision_width,
                intermediate_size=4 * sizes.text_width, num_hidden_layers=sizes.text_layers,
                num_attention_heads=sizes.text_heads, layer_norm_eps=1e-12, is_decoder=True,
            ),
            add_pooling_layer=False,
        )  # fmt: skip
        widths = (sizes.text_width, *sizes.head[1:])
        self.head = nn.Sequential(*(nn.Linear(before, after) for before, after in pairwise(widths)))

    def forward(
        self,
        pixels: Float[Tensor, "batch 3 size size"],
        ids: Int[Tensor, "batch tokens"],
        mask: Int[Tensor, "batch tokens"],
    ) -> Float[Tensor, " batch"]:
        """Scores, not yet standardised."""
        image_tokens = self.vision(pixels).last_hidden_state
        read = self.text(
            input_ids=ids, attention_mask=mask, encoder_hidden_states=image_tokens, is_decoder=False, use_cache=False,
            encoder_attention_mask=torch.ones(image_tokens.shape[:2], dtype=torch.long, device=image_tokens.device),
        ).last_hidden_state  # fmt: skip
        scores: Tensor = self.head(read[:, 0])[:, 0]
        return scores


RENAMED = (
    (r"^blip\.visual_encoder\.cls_token$", "vision.embeddings.class_embedding"),
    (r"^blip\.visual_encoder\.pos_embed$", "vision.embeddings.position_embedding"),
    (r"^blip\.visual_encoder\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.norm1\.", r"vision.encoder.layers.\1.layer_norm1."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.norm2\.", r"vision.encoder.layers.\1.layer_norm2."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"vision.encoder.layers.\1.self_attn.qkv."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision.encoder.layers.\1.self_attn.projection."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.mlp\.", r"vision.encoder.layers.\1.mlp."),
    (r"^blip\.visual_encoder\.norm\.", "vision.post_layernorm."),
    (r"^blip\.text_encoder\.", "text."),
)
HEAD_LAYERS = {"0": 0, "2": 1, "4": 2, "6": 3, "7": 4}
"""Places of the linear layers among the original head's, which has dropout between some of them."""


def converted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The original checkpoint's tensors by this network's names; those that no score depends on keep their own."""
    renamed = {}
    for name, tensor in tensors.items():
        new = name
        for pattern, replacement in RENAMED:
            new, count = re.subn(pattern, replacement, new)
            if count:
                break
        head = re.fullmatch(r"mlp\.layers\.(\d+)\.(weight|bias)", new)
        if head and head.group(1) in HEAD_LAYERS:
            new = f"head.{HEAD_LAYERS[head.group(1)]}.{head.group(2)}"
        renamed[new] = tensor
    return renamed


class FixedTextImageReward(nn.Module):
    """ImageReward with random weights and one fixed text: what `dipp plan` and benchmarks of speed and memory run.

    Args:
        network: another one of its kind.
        tokens: of the text.
    """

    def __init__(self, network: ImageRewardNetwork | None = None, tokens: int = TOKENS) -> None:
        super().__init__()
        self.network = network or ImageRewardNetwork()
        self.register_buffer("tokens", torch.zeros(1, tokens, dtype=torch.long))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, " batch"]:
        """Scores of images in [0, 1]."""
        size = (Sizes.image, Sizes.image)
        small = resized(images, size, "bicubic")
        tokens = cast(Tensor, self.tokens).expand(len(images), -1)
        scores: Tensor = self.network(normalised(small), tokens, torch.ones_like(tokens))
        return scores


def blueprint() -> RewardBlueprint:
    """ImageReward v1.0 without its weights."""
    return RewardBlueprint("THUDM/ImageReward", FixedTextImageReward)
