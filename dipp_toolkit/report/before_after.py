"""`before_after.png`: a handful of prompts, each by every column, as one wide picture for a README or a paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..utils.images import to_uint8
from .thumbnails import evenly

ASPECT = 1.85
"""Width over height that a layout aims at, between 16:9 and 2:1."""
FEWEST, MOST = 12, 16
TILE = 192
"""Side of a shown image in pixels: small images are enlarged to about this with hard pixel edges, large ones shrunk."""
INNER, OUTER, MARGIN = 6, 34, 30
HEADER, CAPTION = 74, 40
INK, FAINT, PAPER, EDGE = "#1c2024", "#687076", "#ffffff", "#d7dbdf"


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


@dataclass(frozen=True)
class Layout:
    """Blocks side by side, each with `rows` prompts of `columns` tiles."""

    blocks: int
    rows: int
    columns: int
    tile: tuple[int, int]

    @property
    def block_width(self) -> int:
        return self.columns * self.tile[0] + (self.columns - 1) * INNER

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole picture."""
        width = 2 * MARGIN + self.blocks * self.block_width + (self.blocks - 1) * OUTER
        return width, 2 * MARGIN + HEADER + self.rows * (self.tile[1] + CAPTION)


def tile_size(width: int, height: int) -> tuple[int, int]:
    """How large one image is shown: a whole multiple of a small one, or a large one shrunk to `TILE`."""
    longest = max(width, height)
    if longest <= TILE:
        factor = max(1, round(TILE / longest))
        return width * factor, height * factor
    return max(1, round(width * TILE / longest)), max(1, round(height * TILE / longest))


def choose_layout(prompts: int, columns: int, tile: tuple[int, int]) -> Layout:
    """The layout of `FEWEST` to `MOST` prompts (all, where there are fewer) whose aspect is nearest to `ASPECT`."""
    least = min(prompts, FEWEST)
    candidates = [
        Layout(blocks, rows, columns, tile)
        for blocks in range(1, MOST + 1)
        for rows in range(1, MOST + 1)
        if least <= blocks * rows <= max(MOST, least)
        and (blocks - 1) * rows < prompts
        and blocks * (rows - 1) < prompts
    ]
    return min(
        candidates,
        key=lambda layout: abs(math.log(layout.size[0] / layout.size[1] / ASPECT)) + 0.02 * _holes(layout, prompts),
    )


def _holes(layout: Layout, prompts: int) -> int:
    return max(0, layout.blocks * layout.rows - prompts)


def _fitting(text: str, width: int, draw: ImageDraw.ImageDraw, largest: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text and a font in which it fits `width`: smaller at first, then cut with an ellipsis."""
    for size in range(largest, 15, -1):
        if draw.textlength(text, font(size)) <= width:
            return text, font(size)
    while text and draw.textlength(f"{text}\N{HORIZONTAL ELLIPSIS}", font(16)) > width:
        text = text[:-1].rstrip()
    return f"{text}\N{HORIZONTAL ELLIPSIS}", font(16)


def _tile_image(image: Tensor, size: tuple[int, int]) -> Image.Image:
    picture = Image.fromarray(to_uint8(torch.as_tensor(image)[None])[0])
    method = Image.Resampling.NEAREST if size[0] >= picture.width else Image.Resampling.LANCZOS
    return picture.resize(size, method)


def draw_before_after(
    prompts: Sequence[str],
    images: Mapping[str, Float[Tensor, "prompts seeds 3 height width"]],
    notes: Mapping[str, str],
) -> Image.Image:
    """Draw the picture, from the first noise of each prompt.

    Args:
        prompts: captions; 12 to 16 of them are chosen evenly, never by hand.
        images: in [0, 1], by column, in the order they are to be shown.
        notes: a few words under a column's name, such as "50 steps".
    """
    height, width = next(iter(images.values())).shape[-2:]
    layout = choose_layout(len(prompts), len(images), tile_size(width, height))
    chosen = evenly(len(prompts), layout.blocks * layout.rows)
    canvas = Image.new("RGB", layout.size, PAPER)
    draw = ImageDraw.Draw(canvas)
    tile_width, tile_height = layout.tile
    for block in range(layout.blocks):
        left = MARGIN + block * (layout.block_width + OUTER)
        mine = chosen[block * layout.rows : (block + 1) * layout.rows]
        for column, name in enumerate(images if mine else ()):
            middle = left + column * (tile_width + INNER) + tile_width // 2
            draw.text((middle, MARGIN + 20), name, INK, font(25, True), "mm")
            text, size = _fitting(notes.get(name, ""), tile_width, draw, 20)
            draw.text((middle, MARGIN + 50), text if notes.get(name) else "", FAINT, size, "mm")
        for row, prompt in enumerate(mine):
            top = MARGIN + HEADER + row * (tile_height + CAPTION)
            for column, stack in enumerate(images.values()):
                corner = (left + column * (tile_width + INNER), top)
                canvas.paste(_tile_image(stack[prompt, 0], layout.tile), corner)
                draw.rectangle((*corner, corner[0] + tile_width - 1, corner[1] + tile_height - 1), outline=EDGE)
            text, size = _fitting(prompts[prompt], layout.block_width, draw, 21)
            draw.text((left + layout.block_width // 2, top + tile_height + CAPTION // 2 - 2), text, INK, size, "mm")
    return canvas
