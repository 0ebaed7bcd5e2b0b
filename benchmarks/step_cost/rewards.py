"""Stand-ins for two published rewards: image towers of their sizes, with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F


class VisionTower:
    """A CLIP image tower in bfloat16 whose one output is the score; it means nothing, its launches do.

    Attributes:
        width: of its layers.
        layers: how many.
    """

    differentiable = True
    width: ClassVar[int] = 1280
    layers: ClassVar[int] = 32

    def __init__(self) -> None:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        config = CLIPVisionConfig(
            hidden_size=self.width, intermediate_size=4 * self.width, num_hidden_layers=self.layers,
            num_attention_heads=16, patch_size=14, image_size=224, projection_dim=1,
        )  # fmt: skip
        self.network = CLIPVisionModelWithProjection(config).eval().requires_grad_(False).to(torch.bfloat16)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        small = F.interpolate(images, (224, 224), mode="bilinear", antialias=True)
        scores: Tensor = self.network(small.to(torch.bfloat16)).image_embeds
        return scores[:, 0].float()


class Huge(VisionTower):
    """ViT-H/14, as in HPSv2 and PickScore."""


class Large(VisionTower):
    """ViT-L/14, as in the aesthetic predictor."""

    width: ClassVar[int] = 1024
    layers: ClassVar[int] = 24
