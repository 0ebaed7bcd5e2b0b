"""The surrogate's network: latents and encoded prompts to one number."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ...diffusion.condition import Condition

GROUPS = 8
SMALLEST_SIDE = 4
GRID = 4
"""Places each way at which the last features are read."""
COARSE = 8
"""Places each way at which the latents themselves are read."""
WHOLE_PROMPT = ("pooled_projections", "text_embeds")
"""What networks call an embedding of the whole prompt."""


def pooled(condition: Condition) -> Float[Tensor, "batch features"] | None:
    """One vector a prompt; None where the network reads no prompt.

    Where the text encoder gives one for the whole prompt, it is that: CLIP's of SDXL, Stable Diffusion 3 and Flux.
    Elsewhere it is the mean over the tokens that the mask keeps (T5's of PixArt), and over all where there is no mask:
    each padding of Stable Diffusion's CLIP, whose attention is causal, has read the whole prompt.
    """
    tensors = condition.tensors
    for name in WHOLE_PROMPT:
        if name in tensors:
            return tensors[name].float()
    for tensor in tensors.values():
        if tensor.is_floating_point() and tensor.ndim == 3:
            kept = _kept(condition, tensor)
            return (tensor.float() * kept[..., None]).sum(1) / kept.sum(1, keepdim=True).clamp_min(1)
    return None


def _kept(condition: Condition, tokens: Float[Tensor, "batch tokens features"]) -> Float[Tensor, "batch tokens"]:
    """1 for a token that counts, 0 for padding."""
    for name, tensor in condition.tensors.items():
        if name.endswith("mask") and tensor.shape == tokens.shape[:2]:
            return (tensor > 0).float()
    return tokens.new_ones(tokens.shape[:2], dtype=torch.float32)


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


def _from_nothing(features: int) -> nn.Linear:
    """A linear map that is 0 until it has learned."""
    layer = nn.Linear(features, 1, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


class SurrogateNetwork(nn.Module):
    """A small residual network over latents. Three readings are added up: a nonlinear one of the last features' means
    and deviations over all places, a linear one of these features at `GRID` x `GRID` places, and a linear one of the
    latents themselves at `COARSE` x `COARSE` places, which is what few samples suffice for.

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
        self.places, self.latents = _from_nothing(width * GRID**2), _from_nothing(channels * COARSE**2)

    def forward(
        self, x0: Float[Tensor, "batch channels height width"], text: Float[Tensor, "batch features"] | None
    ) -> Float[Tensor, " batch"]:
        """Predicted scores, in deviations within a prompt; what all samples of a prompt share is left open."""
        x = self.stem(x0)
        prompt = self.text(text) if self.text is not None else x.new_zeros(len(x), self.width)
        for index, block in enumerate(self.blocks):
            if index and min(x.shape[-2:]) >= 2 * SMALLEST_SIDE:
                x = F.avg_pool2d(x, 2)
            x = block(x, prompt)
        features = F.silu(x)
        spread = features.var((2, 3), correction=0).add(1e-6).sqrt()
        score = self.head(torch.cat([features.mean((2, 3)), spread], dim=1))
        score = score + self.places(F.adaptive_avg_pool2d(features, GRID).flatten(1))
        score = score + self.latents(F.adaptive_avg_pool2d(x0, COARSE).flatten(1))
        return score[:, 0]
