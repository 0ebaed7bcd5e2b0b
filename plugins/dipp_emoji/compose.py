"""Real images of the emoji world: an emoji placed on a coloured background, with jitter in place and size."""

from __future__ import annotations

from functools import cache
from importlib import resources

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .captions import BACKGROUNDS, emoji

SIZE = 64
SHEET_COLUMNS = 12
SCALE_RANGE = (0.84, 0.96)


@cache
def sprites() -> Tensor:
    """All emoji as premultiplied RGBA, float32 in [0, 1], `(132, 4, 64, 64)`, from the sprite sheet."""
    with resources.as_file(resources.files(__package__).joinpath("assets/noto-sheet.png")) as path:
        sheet = np.asarray(Image.open(path).convert("RGBA"))
    rows = sheet.shape[0] // SIZE
    tiles = sheet.reshape(rows, SIZE, SHEET_COLUMNS, SIZE, 4).transpose(0, 2, 4, 1, 3).reshape(-1, 4, SIZE, SIZE)
    rgba = torch.from_numpy(tiles[: len(emoji())].copy()).float() / 255
    return torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1)


@cache
def backgrounds() -> Tensor:
    """Background colours in [0, 1], `(8, 3)`."""
    return torch.tensor(list(BACKGROUNDS.values())).float() / 255


def compose(emoji_index: Tensor, background_index: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Compose one image for each pair, with fresh jitter.

    The size is uniform in 84 to 96 % of the frame, and the place uniform among those that keep the whole sprite
    inside it, both on a continuous scale (bilinear resampling).

    Args:
        emoji_index: int64, `(B,)`.
        background_index: int64, `(B,)`.
        generator: source of the jitter.

    Returns:
        Images in [0, 1], `(B, 3, 64, 64)`.
    """
    batch = len(emoji_index)
    low, high = SCALE_RANGE
    scale = low + (high - low) * torch.rand(batch, generator=generator)
    shift = (2 * torch.rand(batch, 2, generator=generator) - 1) * (1 - scale)[:, None]
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
    theta[:, :, 2] = -shift / scale[:, None]
    grid = F.affine_grid(theta, [batch, 4, SIZE, SIZE], align_corners=False)
    placed = F.grid_sample(sprites()[emoji_index], grid, align_corners=False, padding_mode="zeros")
    behind = backgrounds()[background_index][:, :, None, None]
    return (placed[:, :3] + (1 - placed[:, 3:]) * behind).clamp(0, 1)
