"""`before_after.png`: a handful of prompts, each by every column, as one wide picture for a README or a paper.

It says by itself by which rule its prompts were chosen: pictures are shown without the page that explains them.
"""

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
from .shown_prompts import ShownPrompt
from .strips import Strip

ASPECT = 1.85
"""Width over height that a layout aims at, between 16:9 and 2:1."""
TILE = 192
"""Side of a shown image in pixels: small images are enlarged to about this with hard pixel edges, large ones shrunk."""
INNER, OUTER, MARGIN = 6, 34, 30
HEADER, CAPTION = 74, 40
TITLE, LINE = 50, 30
"""Height of a strip's title, and of each line of its words."""
INK, FAINT, PAPER, EDGE = "#1c2024", "#687076", "#ffffff", "#d7dbdf"


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


@dataclass(frozen=True)
class Layout:
    """Blocks side by side, each with `rows` prompts of `columns` tiles, in one strip or several below each other."""

    blocks: int
    rows: int
    columns: int
    tile: tuple[int, int]
    strips: int = 1

    @property
    def block_width(self) -> int:
        return self.columns * self.tile[0] + (self.columns - 1) * INNER

    @property
    def width(self) -> int:
        """Of the whole picture."""
        return 2 * MARGIN + self.blocks * self.block_width + (self.blocks - 1) * OUTER

    @property
    def tiles_height(self) -> int:
        """Of the tiles of one strip, with the names of columns above them and the prompts below them."""
        return HEADER + self.rows * (self.tile[1] + CAPTION)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole picture, with two lines of words a strip."""
        return self.width, 2 * MARGIN + self.strips * (TITLE + 2 * LINE + self.tiles_height)


def tile_size(width: int, height: int) -> tuple[int, int]:
    """How large one image is shown: a whole multiple of a small one, or a large one shrunk to `TILE`."""
    longest = max(width, height)
    if longest <= TILE:
        factor = max(1, round(TILE / longest))
        return width * factor, height * factor
    return max(1, round(width * TILE / longest)), max(1, round(height * TILE / longest))


def choose_layout(prompts: int, columns: int, tile: tuple[int, int], strips: int = 1) -> Layout:
    """The layout that shows so many prompts in each of the strips and whose aspect is nearest to `ASPECT`."""
    candidates = [
        Layout(blocks, math.ceil(prompts / blocks), columns, tile, strips)
        for blocks in range(1, prompts + 1)
        if (blocks - 1) * math.ceil(prompts / blocks) < prompts
    ]

    def badness(layout: Layout) -> float:
        width, height = layout.size
        return abs(math.log(width / height / ASPECT)) + 0.02 * (layout.blocks * layout.rows - prompts)

    return min(candidates, key=badness)


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


def wrapped(text: str, width: int, face: ImageFont.FreeTypeFont) -> list[str]:
    """The text in lines that are no wider than `width` pixels, broken between words."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and face.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@dataclass(frozen=True)
class Sheet:
    """A picture that is being drawn: what every strip of it shares."""

    canvas: Image.Image
    layout: Layout
    prompts: Sequence[str]
    images: Mapping[str, Float[Tensor, "prompts seeds 3 height width"]]
    notes: Mapping[str, str]

    @property
    def draw(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.canvas)

    def words(self, strip: Strip, lines: Sequence[str], top: int) -> int:
        """Write a strip's title and how it was chosen; returns where its tiles begin."""
        self.draw.text((MARGIN, top + TITLE // 2), strip.title, INK, font(28, True), "lm")
        for number, line in enumerate(lines):
            self.draw.text((MARGIN, top + TITLE + number * LINE + LINE // 2), line, FAINT, font(20), "lm")
        return top + TITLE + len(lines) * LINE

    def tiles(self, strip: Strip, top: int) -> None:
        """Draw a strip's prompts, block by block."""
        layout, shown = self.layout, list(zip(strip.prompts, strip.gains, strict=True))
        for block in range(layout.blocks):
            left = MARGIN + block * (layout.block_width + OUTER)
            mine = shown[block * layout.rows : (block + 1) * layout.rows]
            if mine:
                self.column_names(left, top)
            for row, (one, gain) in enumerate(mine):
                self.prompt(one, gain, left, top + HEADER + row * (layout.tile[1] + CAPTION))

    def column_names(self, left: int, top: int) -> None:
        """Write what each column is above a block."""
        width = self.layout.tile[0]
        for column, name in enumerate(self.images):
            middle = left + column * (width + INNER) + width // 2
            self.draw.text((middle, top + 24), name, INK, font(25, True), "mm")
            if self.notes.get(name):
                text, face = _fitting(self.notes[name], width, self.draw, 20)
                self.draw.text((middle, top + 54), text, FAINT, face, "mm")

    def prompt(self, shown: ShownPrompt, gain: str, left: int, top: int) -> None:
        """Draw one prompt's tiles, and below them its words and how its score went."""
        width, height = self.layout.tile
        for column, stack in enumerate(self.images.values()):
            corner = (left + column * (width + INNER), top)
            self.canvas.paste(_tile_image(stack[shown.row, 0], self.layout.tile), corner)
            self.draw.rectangle((*corner, corner[0] + width - 1, corner[1] + height - 1), outline=EDGE)
        room = math.ceil(font(18).getlength(gain)) + 16 if gain else 0
        if room > self.layout.block_width // 2:
            gain, room = "", 0
        text, face = _fitting(self.prompts[shown.row], self.layout.block_width - room, self.draw, 21)
        line = top + height + CAPTION // 2 - 2
        start = left + (self.layout.block_width - room - math.ceil(face.getlength(text))) // 2
        self.draw.text((start, line), text, INK, face, "lm")
        if gain:
            self.draw.text((start + math.ceil(face.getlength(text)) + 16, line), gain, FAINT, font(18), "lm")


def draw_before_after(
    prompts: Sequence[str],
    images: Mapping[str, Float[Tensor, "prompts seeds 3 height width"]],
    notes: Mapping[str, str],
    strips: Sequence[Strip],
) -> Image.Image:
    """Draw the picture, from the first noise of each prompt.

    Args:
        prompts: captions of all that were evaluated.
        images: in [0, 1], by column, in the order they are to be shown.
        notes: a few words under a column's name, such as "50 steps".
        strips: which prompts are shown, with the words that say how they were chosen; at least one prompt each.
    """
    height, width = next(iter(images.values())).shape[-2:]
    most = max(len(strip.prompts) for strip in strips)
    layout = choose_layout(most, len(images), tile_size(width, height), len(strips))
    lines = [wrapped(strip.text, layout.width - 2 * MARGIN, font(20)) for strip in strips]
    tall = 2 * MARGIN + sum(TITLE + len(text) * LINE + layout.tiles_height for text in lines)
    sheet = Sheet(Image.new("RGB", (layout.width, tall), PAPER), layout, prompts, images, notes)
    top = MARGIN
    for strip, text in zip(strips, lines, strict=True):
        top = sheet.words(strip, text, top)
        sheet.tiles(strip, top)
        top += layout.tiles_height
    return sheet.canvas
