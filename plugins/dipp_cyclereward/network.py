"""CycleReward's network: ImageReward's with GELU in its head; and the original checkpoint's names by this one's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from dipp_imagereward.network import FixedTextImageReward, ImageRewardNetwork, Sizes, converted
from dipp_toolkit.models.blueprints import RewardBlueprint

TOKENS = 128


class CycleRewardNetwork(ImageRewardNetwork):
    """Image tokens, a text that attends to them, and on its first token five linear layers with GELU between them.

    Args:
        sizes: of the architecture; the published ones are ImageReward's.
    """

    def __init__(self, sizes: Sizes | None = None) -> None:
        super().__init__(sizes)
        first, *others = self.head
        self.head = nn.Sequential(first, *(module for layer in others for module in (nn.GELU(), layer)))


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The original checkpoint's tensors by this network's names; the head's layers have the original's places."""
    return converted({re.sub(r"^mlp\.layers\.", "head.", name): tensor for name, tensor in tensors.items()})


def fixed_text() -> FixedTextImageReward:
    """CycleReward with random weights and one fixed text."""
    return FixedTextImageReward(CycleRewardNetwork(), TOKENS)


def blueprint() -> RewardBlueprint:
    """CycleReward without its weights; its three variants share it."""
    return RewardBlueprint("NagaSaiAbhinay/CycleReward-Combo", fixed_text)
