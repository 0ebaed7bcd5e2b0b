"""What `dipp plan` builds the emoji world's names from, without weights.

A caption's features are the same all through a run and are kept, so the networks score images against one fixed
caption's.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipp_toolkit.models.blueprints import PipelineBlueprint, RewardBlueprint
from dipp_toolkit.utils.images import Images

from . import WEIGHTS
from .rewards import EmojiClip, EmojiPreference, ModelReward, embed_pixels, to_pixels


def reference() -> PipelineBlueprint:
    """The multi-step reference."""
    return PipelineBlueprint(WEIGHTS / "reference", "emoji-reference")


def onestep() -> PipelineBlueprint:
    """The one-step generator."""
    return PipelineBlueprint(WEIGHTS / "onestep", "emoji-onestep")


def _random_model(reward: type[ModelReward]) -> Any:
    model_class: Any = reward.model_class
    config = model_class.config_class.from_pretrained(WEIGHTS / reward.name.removeprefix("emoji-"))
    return model_class._from_config(config, **reward.load_options)


class ClipNetwork(nn.Module):
    """`emoji-clip` with random weights."""

    caption: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.model: Any = _random_model(EmojiClip)
        self.register_buffer("caption", torch.randn(1, self.model.config.projection_dim))

    def forward(self, images: Images) -> Float[Tensor, " batch"]:
        """Scores of images in [0, 1]."""
        return 100 * (embed_pixels(self.model, to_pixels(images)) * self.caption).sum(-1)


class PreferenceNetwork(nn.Module):
    """`emoji-preference` with random weights."""

    caption: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.model: Any = _random_model(EmojiPreference)
        self.register_buffer("caption", torch.randn(1, self.model.match.out_features))

    def forward(self, images: Images) -> Float[Tensor, " batch"]:
        """Scores of images in [0, 1]."""
        quality, matched = self.model.parts(self.model.image_features(to_pixels(images)), self.caption)
        return quality + matched


def clip() -> RewardBlueprint:
    """`emoji-clip`."""
    return RewardBlueprint("emoji-clip", ClipNetwork)


def preference() -> RewardBlueprint:
    """`emoji-preference`."""
    return RewardBlueprint("emoji-preference", PreferenceNetwork)
