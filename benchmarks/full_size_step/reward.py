"""A full-size HPSv2 with random weights, as a reward file."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dipp_hps.reward import HPSv2Network


class RandomHPSv2:
    """ViT-H/14 in bfloat16; scores mean nothing, their cost does."""

    differentiable = True

    def __init__(self, device: str = "cpu") -> None:
        with torch.device(device):
            self.network = HPSv2Network().to(torch.bfloat16).eval().requires_grad_(False)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            return self.network(images).float()
