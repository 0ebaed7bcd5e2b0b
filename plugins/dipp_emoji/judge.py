"""`emoji-judge`: an independent answer to what the rewards answer, by another architecture. It only judges.

Grouped convolutions with squeeze and excitation (RegNetY) instead of a ResNet, recurrence instead of attention over
words, other compositions, other kinds of damage, other samples: what a generator learns to exploit in a reward should
not carry over to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PretrainedConfig, RegNetConfig, RegNetModel

from dipp_toolkit.errors import RequestError
from dipp_toolkit.rewards.scores import check_inputs
from dipp_toolkit.utils.images import Images

from .captions import BACKGROUNDS, TEMPLATES, caption, emoji
from .rewards import EmojiReward, QualityAndMatch, to_pixels
from .text import EOS


class JudgeConfig(PretrainedConfig):
    """Sizes of a `JudgeModel`.

    Attributes:
        vision: arguments of `RegNetConfig`.
        vocabulary_size: words of the tokenizer.
        text_width: width of the recurrent text encoder.
        emoji_count, background_count: classes of the two naming heads.
        match_scale: the most that agreement with the caption can add to a score or take away.
    """

    model_type = "emoji-judge"

    def __init__(
        self,
        vision: dict[str, Any] | None = None,
        vocabulary_size: int = 253,
        text_width: int = 96,
        emoji_count: int = 132,
        background_count: int = 8,
        match_scale: float = 3.0,
        **kwargs: Any,
    ):
        self.vision = vision or {
            "embedding_size": 32, "hidden_sizes": [48, 96, 192], "depths": [2, 3, 3], "groups_width": 24, "layer_type":
            "y",
        }  # fmt: skip
        self.vocabulary_size = vocabulary_size
        self.text_width = text_width
        self.emoji_count, self.background_count = emoji_count, background_count
        self.match_scale = match_scale
        super().__init__(**kwargs)


class JudgeModel(QualityAndMatch):
    """A RegNetY looks, and names emoji and background; a GRU reads."""

    config_class = JudgeConfig

    def __init__(self, config: JudgeConfig):
        super().__init__(config)
        vision = RegNetConfig(**config.vision)
        width, shared = vision.hidden_sizes[-1], config.text_width
        self.vision = RegNetModel(vision)
        self.words = nn.Embedding(config.vocabulary_size, shared)
        self.text = nn.GRU(shared, shared, batch_first=True)
        self.emoji = nn.Linear(width, config.emoji_count)
        self.background = nn.Linear(width, config.background_count)
        self.quality = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        self.match = nn.Linear(width, shared)
        self.post_init()

    def text_features(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch shared"]:
        """The recurrent network's state at the end token."""
        states, _ = self.text(self.words(ids))
        end = (ids == EOS).int().argmax(1)
        return states[torch.arange(len(ids), device=ids.device), end]


@cache
def caption_pairs() -> dict[str, tuple[int, int]]:
    """The pair of emoji and background of every caption of the world, in all wordings."""
    return {
        caption(i, j, name, template): (i, j)
        for i, entry in enumerate(emoji())
        for j in range(len(BACKGROUNDS))
        for name in range(len(entry.names))
        for template in range(len(TEMPLATES))
    }


class EmojiJudge(EmojiReward):
    r"""A preference score as `emoji-preference`'s, in log-odds, with names and features of images besides.

    It is differentiable, but nothing of this project trains on it: a score that was trained on says nothing any more.
    """

    name = "emoji-judge"
    model_class = JudgeModel

    @torch.no_grad()
    def name_images(self, images: Images) -> tuple[Int[Tensor, " batch"], Int[Tensor, " batch"]]:
        """Which emoji and which background each image shows, as indices into `captions.emoji()` and `BACKGROUNDS`.

        Raises:
            RequestError: the images are not a `(B, 3, H, W)` batch.
        """
        features = self.features(images)
        return self.model.emoji(features).argmax(1), self.model.background(features).argmax(1)

    @torch.no_grad()
    def features(self, images: Images) -> Float[Tensor, "batch features"]:
        """Features for a Frechet distance, float32.

        Raises:
            RequestError: the images are not a `(B, 3, H, W)` batch.
        """
        check_inputs(self.name, images, None)
        with self._float32(images.device):
            features: Tensor = self.model.image_features(to_pixels(images))
            return features

    def naming_accuracy(self, images: Images, prompts: Sequence[str]) -> float:
        """The share of images named as their prompt says, emoji and background both.

        Raises:
            RequestError: a prompt is not one of this world's captions.
        """
        check_inputs(self.name, images, prompts)
        pair_of = caption_pairs()
        for prompt in prompts:
            if prompt not in pair_of:
                raise RequestError(
                    f"The prompt '{prompt}' is not a caption of the emoji world, so what it names is unknown."
                )
        shown = torch.stack(self.name_images(images), 1).cpu()
        expected = torch.tensor([pair_of[prompt] for prompt in prompts])
        return (shown == expected).all(1).float().mean().item()
