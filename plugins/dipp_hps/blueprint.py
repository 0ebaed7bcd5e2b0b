"""HPSv2's architecture: the cosine of OpenCLIP ViT-H/14's image and text embeddings."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dipp_toolkit.models.blueprints import RewardBlueprint

SIZE = 224
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# laion/CLIP-ViT-H-14-laion2B-s32B-b79K, which HPSv2 fine-tunes.
TEXT: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
    "hidden_act": "gelu", "projection_dim": 1024,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 16, "num_hidden_layers": 32,
    "patch_size": 14, "image_size": SIZE, "hidden_act": "gelu", "projection_dim": 1024,
}  # fmt: skip


class HPSv2Network(nn.Module):
    """Scores images against one fixed text; a prompt's features are the same all through a run, so they are kept."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import CLIPConfig, CLIPModel

        self.clip: Any = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=1024))
        self.register_buffer("text_features", torch.randn(1, 1024))

    def forward(self, images: Tensor) -> Tensor:
        """Scores `(batch,)` of images in [0, 1], `(batch, 3, height, width)`."""
        small = F.interpolate(images, size=(SIZE, SIZE), mode="bicubic", antialias=True, align_corners=False)
        mean, std = (torch.tensor(one, device=images.device)[:, None, None] for one in (MEAN, STD))
        features = self.clip.visual_projection(self.clip.vision_model((small - mean) / std).pooler_output)
        return F.cosine_similarity(features, cast(Tensor, self.text_features).to(features.dtype), dim=1)


def blueprint() -> RewardBlueprint:
    """HPSv2 and v2.1 share it."""
    return RewardBlueprint("xswu/HPSv2", HPSv2Network)
