"""The surrogate's network: latents and encoded prompts to one number."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..condition import Condition

GROUPS = 8
SMALLEST_SIDE = 4


def pooled(condition: Condition) -> Float[Tensor, "batch features"] | None:
    """One vector a prompt: the mean over its tokens of what the network reads; None where it reads none."""
    for tensor in condition.tensors.values():
        if tensor.is_floating_point() and tensor.ndim == 3:
            return tensor.float().mean(1)
    return None


class Block(nn.Module):
    """Two convolutions around a skip, shifted and scaled by the prompt."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_in, self.norm_out = nn.GroupNorm(GROUPS, width), nn.GroupNorm(GROUPS, width)
        self.conv_in, self.conv_out = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.prompt = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
        scale, shift = self.prompt(prompt)[..., None, None].chunk(2, dim=1)
        inner = self.norm_out(self.conv_in(F.silu(self.norm_in(x)))) * (1 + scale) + shift
        return x + self.conv_out(F.silu(inner))


class SurrogateNetwork(nn.Module):
    """A small residual network over latents.

    Args:
        channels: of the latents.
        text: features of a pooled prompt; 0 where there is none.
        width: of every layer.
        blocks: residual blocks; before and between them the resolution is halved, down to 4.
    """

    def __init__(self, channels: int, text: int, width: int = 32, blocks: int = 3) -> None:
        super().__init__()
        self.width = width
        self.stem = nn.Conv2d(channels, width, 4, stride=2, padding=1)
        self.text = nn.Sequential(nn.LayerNorm(text), nn.Linear(text, width), nn.SiLU()) if text else None
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.head = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(
        self, x0: Float[Tensor, "batch channels height width"], text: Float[Tensor, "batch features"] | None
    ) -> Float[Tensor, " batch"]:
        """Predicted scores, standardised."""
        x = self.stem(x0)
        prompt = self.text(text) if self.text is not None else x.new_zeros(len(x), self.width)
        for index, block in enumerate(self.blocks):
            if index and min(x.shape[-2:]) >= 2 * SMALLEST_SIDE:
                x = F.avg_pool2d(x, 2)
            x = block(x, prompt)
        features = F.silu(x)
        spread = features.var((2, 3), correction=0).add(1e-6).sqrt()
        return self.head(torch.cat([features.mean((2, 3)), spread], dim=1))[:, 0]
