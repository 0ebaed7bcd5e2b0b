"""ImageReward's architecture: BLIP's ViT-L/16, a BERT that reads the prompt and attends to the image, and an MLP."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dipp_toolkit.models.blueprints import RewardBlueprint

SIZE, TOKENS = 224, 35
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
WIDTHS = (768, 1024, 128, 64, 16, 1)


class ImageRewardNetwork(nn.Module):
    """Scores images against one fixed text."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BlipTextConfig, BlipVisionConfig
        from transformers.models.blip.modeling_blip import BlipVisionModel
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        self.vision: Any = BlipVisionModel(
            BlipVisionConfig(
                hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=16,
                image_size=SIZE,
            )
        )  # fmt: skip
        self.text: Any = BlipTextModel(
            BlipTextConfig(
                vocab_size=30524, hidden_size=768, encoder_hidden_size=1024, intermediate_size=3072,
                num_hidden_layers=12, num_attention_heads=12,
            ),
            add_pooling_layer=False,
        )  # fmt: skip
        self.head = nn.Sequential(*(nn.Linear(before, after) for before, after in pairwise(WIDTHS)))
        self.register_buffer("tokens", torch.zeros(1, TOKENS, dtype=torch.long))

    def forward(self, images: Tensor) -> Tensor:
        """Scores `(batch,)` of images in [0, 1], `(batch, 3, height, width)`."""
        small = F.interpolate(images, size=(SIZE, SIZE), mode="bicubic", antialias=True, align_corners=False)
        mean, std = (torch.tensor(one, device=images.device)[:, None, None] for one in (MEAN, STD))
        seen = self.vision((small - mean) / std).last_hidden_state
        tokens = cast(Tensor, self.tokens).expand(len(images), -1)
        mask = torch.ones_like(tokens)
        read = self.text(
            input_ids=tokens, attention_mask=mask, encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
        ).last_hidden_state  # fmt: skip
        return self.head(read[:, 0]).squeeze(1)


def blueprint() -> RewardBlueprint:
    """ImageReward-v1.0."""
    return RewardBlueprint("THUDM/ImageReward", ImageRewardNetwork)
