"""Rewards on a published CLIP without their weights, for `dipp plan`: the image's tower against one fixed text."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.blueprints import RewardBlueprint
from ..utils.deterministic import resized
from ..utils.images import Images
from .preprocess import normalised

Towers = tuple[dict[str, Any], dict[str, Any]]
"""Sizes of the text's and of the image's tower, as transformers' configurations name them."""

SIZE = 224


def _towers(text: tuple[int, ...], vision: tuple[int, ...], activation: str = "gelu") -> Towers:
    """From width, width of the inner layers, heads, layers and the features' width of each tower."""
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "projection_dim")
    texts, images = (dict(zip(names, sizes, strict=True), hidden_act=activation) for sizes in (text, vision))
    return texts, images | {"patch_size": 14, "image_size": SIZE}


TOWERS: dict[str, Towers] = {
    "ViT-L-14-quickgelu": _towers((768, 3072, 12, 12, 768), (1024, 4096, 16, 24, 768), "quick_gelu"),
    "ViT-H-14": _towers((1024, 4096, 16, 24, 1024), (1280, 5120, 16, 32, 1024)),
    "ViT-g-14": _towers((1024, 4096, 16, 24, 1024), (1408, 6144, 16, 40, 1024)),
}
"""By open_clip's names: OpenAI's ViT-L/14, and LAION's ViT-H/14 and ViT-g/14 (Cherti et al. 2022, arXiv 2212.07143)."""


class FixedTextClip(nn.Module):
    """Scores images against one fixed text; a prompt's features are the same all through a run, so they are kept.

    Args:
        text: sizes of the text's tower.
        vision: of the image's.
    """

    def __init__(self, text: dict[str, Any], vision: dict[str, Any]) -> None:
        super().__init__()
        from transformers import CLIPConfig, CLIPModel

        width = text["projection_dim"]
        self.clip: Any = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))
        self.register_buffer("text_features", torch.randn(1, width))

    def features(self, images: Images) -> Float[Tensor, "batch features"]:
        """Of images in [0, 1] of any size."""
        small = resized(images, (SIZE, SIZE), "bicubic")
        features: Tensor = self.clip.visual_projection(self.clip.vision_model(normalised(small)).pooler_output)
        return features

    def forward(self, images: Images) -> Float[Tensor, " batch"]:
        """Scores of images in [0, 1] of any size."""
        features = self.features(images)
        return F.cosine_similarity(features, cast(Tensor, self.text_features).to(features.dtype), dim=1)


def clip_blueprint(hub: str, model: str) -> RewardBlueprint:
    """A reward that is a cosine of a published CLIP's towers.

    Args:
        hub: where its weights are.
        model: of `TOWERS`.
    """
    return RewardBlueprint(hub, partial(FixedTextClip, *TOWERS[model]))
