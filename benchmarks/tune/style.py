"""A drawing style that no model of the emoji world has seen: stickers, cut out with a white rim and a dark line."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dipp_emoji.compose import SCALE_RANGE, SIZE, backgrounds, sprites

RIM = 2
"""Pixels of the white rim; the dark line around it is one more."""
DARK = 0.12

Pictures = Float[Tensor, "batch 3 64 64"]


def draw(
    emoji: Int[Tensor, " batch"], background: Int[Tensor, " batch"], random: torch.Generator
) -> tuple[Pictures, Pictures]:
    """Compositions as the world knows them, and the same ones as stickers, with equal places and sizes.

    `dipp_emoji.compose.compose` gives no outline, so the placing is repeated here.

    Args:
        emoji: which.
        background: on which colour.
        random: source of places and sizes.

    Returns:
        Plain pictures and stickers, in [0, 1].
    """
    count = len(emoji)
    low, high = SCALE_RANGE
    scale = low + (high - low) * torch.rand(count, generator=random)
    shift = (2 * torch.rand(count, 2, generator=random) - 1) * (1 - scale)[:, None]
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
    theta[:, :, 2] = -shift / scale[:, None]
    grid = F.affine_grid(theta, [count, 4, SIZE, SIZE], align_corners=False)
    placed = F.grid_sample(sprites()[emoji], grid, align_corners=False, padding_mode="zeros")
    colour, alpha = placed[:, :3], placed[:, 3:]
    behind = backgrounds()[background][:, :, None, None].expand(-1, -1, SIZE, SIZE)
    plain = colour + (1 - alpha) * behind
    lined = torch.lerp(behind, torch.full_like(behind, DARK), _grown(alpha, RIM + 1))
    rimmed = torch.lerp(lined, torch.ones_like(behind), _grown(alpha, RIM))
    return plain.clamp(0, 1), (colour + (1 - alpha) * rimmed).clamp(0, 1)


def _grown(alpha: Float[Tensor, "batch 1 64 64"], pixels: int) -> Float[Tensor, "batch 1 64 64"]:
    """A shape grown by so many pixels, its border softened over three."""
    grown = F.max_pool2d((alpha > 0.5).float(), 2 * pixels + 1, 1, pixels)
    return F.avg_pool2d(F.pad(grown, [1] * 4, mode="replicate"), 3, 1)
