"""The emoji world's rewards as a reward package would offer them: called with images and texts, remembering nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dipp_emoji.rewards import EmojiClip, embed_captions, embed_pixels, to_pixels


class PlainReward:
    """The network of one of the rewards; prompts are tokenized and read at every call.

    Args:
        reward: an `EmojiClip` or an `EmojiPreference`.
    """

    def __init__(self, reward: Any):
        self.model, self.tokenizer, self.clip = reward.model, reward.tokenizer, isinstance(reward, EmojiClip)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        ids, pixels = self.tokenizer(list(prompts)).to(images.device), to_pixels(images)
        with torch.autocast(images.device.type, enabled=False):
            if self.clip:
                return 100 * (embed_pixels(self.model, pixels) * embed_captions(self.model, ids)).sum(-1)
            scores: Tensor = self.model(pixels, ids)
            return scores
