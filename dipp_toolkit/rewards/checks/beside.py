"""A reward of groups as one of single images: each is scored beside fixed companions of its own prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ...protocols import GroupReward
from ...utils.images import Images


class BesideCompanion:
    """What an image scores in a group of itself and three fixed pictures.

    That is a function of the image and its prompt alone, so that all checks of single images say something of it.

    Args:
        reward: of groups.

    Attributes:
        holds_fixed: whether the reward says in an attribute of this name that its gradient leaves out, by design, how
            the group's numbers change with the image.
    """

    def __init__(self, reward: GroupReward):
        self.reward = reward
        self.holds_fixed = bool(getattr(reward, "holds_fixed", False))

    @property
    def differentiable(self) -> bool | None:
        """Whether the reward is."""
        return self.reward.differentiable

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores, one group after the other."""
        companions = _companions(images)
        return torch.stack(
            [
                self.reward(torch.cat([image[None], companions]), [prompt] * (1 + len(companions)))[0]
                for image, prompt in zip(images, prompts, strict=True)
            ]
        )


def _companions(like: Images) -> Float[Tensor, "3 3 height width"]:
    """Ramps of colours, which no picture of a check resembles, of three levels."""
    height, width = like.shape[-2:]
    down, across = torch.linspace(0.2, 0.8, height), torch.linspace(0.8, 0.2, width)
    planes = [down[:, None].expand(-1, width), across.expand(height, -1), (down[:, None] + across) / 2]
    ramp = torch.stack(planes)
    return torch.stack([0.8 * ramp, ramp.flip(0), 0.3 + 0.7 * ramp]).to(like)
