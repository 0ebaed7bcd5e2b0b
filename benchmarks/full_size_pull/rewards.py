"""HPSv2's and ImageReward's networks at full size with random weights, as a reward file."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dipp_hps.reward import HPSv2Network
from dipp_imagereward.network import FixedTextImageReward


class RandomReward:
    """Scores mean nothing; how far they follow an image is that of an untrained network."""

    differentiable = True

    def __init__(self, device: str, network: type[nn.Module]) -> None:
        with torch.device(device):
            self.network = network().eval().requires_grad_(False)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        scores: Tensor = self.network(images)
        return scores.float()


class RandomHPSv2(RandomReward):
    """The cosine of ViT-H/14's towers."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(device, HPSv2Network)


class RandomImageReward(RandomReward):
    """BLIP's ViT-L/16 under a BERT that reads one fixed prompt."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(device, FixedTextImageReward)
