"""A reward of groups as one of single images: each is scored beside a fixed companion of its own prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ...protocols import GroupReward
from ...utils.images import Images


class BesideCompanion:
    """What an image scores in a group of itself and a fixed picture.

    That is a function of the image and its prompt alone, so that all checks of single images say something of it.

    Args:
        reward: of groups.
    """

    def __init__(self, reward: GroupReward):
        self.reward = reward

    @property
    def differentiable(self) -> bool | None:
        """Whether the reward is."""
        return self.reward.differentiable

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores, one group after the other."""
        companion = _companion(images)
        return torch.stack(
            [
                self.reward(torch.stack([image, companion]), [prompt, prompt])[0]
                for image, prompt in zip(images, prompts, strict=True)
            ]
        )


def _companion(like: Images) -> Float[Tensor, "3 height width"]:
    """Three ramps, which no picture of a check resembles."""
    height, width = like.shape[-2:]
    down, across = torch.linspace(0.2, 0.8, height), torch.linspace(0.8, 0.2, width)
    planes = [down[:, None].expand(-1, width), across.expand(height, -1), (down[:, None] + across) / 2]
    return torch.stack(planes).to(like)
