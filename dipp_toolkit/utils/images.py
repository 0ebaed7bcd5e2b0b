"""Image tensors as PNG files."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from .atomic import whole_file

Images = Float[Tensor, "batch 3 height width"]

LONGEST_SIDE = 4200
"""Pixels that neither side of a grid of several images exceeds; 16 images of 1,024 pixels have their own size in it."""


def to_uint8(images: Images) -> UInt8[np.ndarray, "batch height width 3"]:
    """Images in [0, 1] as 8-bit pixels, rounded."""
    array: np.ndarray = images.detach().float().clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return array


def write_png(picture: Image.Image, path: Path, *, optimize: bool = False, shared: bool = False) -> None:
    """Write a PNG that appears whole or not at all; a link in its place is replaced.

    Args:
        picture: of any mode that PNG has.
        path: in a folder that exists.
        optimize: a smaller file for more time.
        shared: see `atomic.whole_file`.

    Raises:
        OSError: it cannot be written; what was there before is untouched.
    """
    with whole_file(path, shared=shared) as beside:
        picture.save(beside, "PNG", optimize=optimize)


def data_address(picture: Image.Image, kind: str, **options: Any) -> str:
    """A picture as a `data:` address, so that a page needs no other file.

    Args:
        picture: of a mode that the format has.
        kind: `"png"`, `"jpeg"` or `"webp"`.
        options: of Pillow's `save`.
    """
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def save_image(image: Tensor, path: Path) -> None:
    """One image `(3, height, width)` in [0, 1] as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(Image.fromarray(to_uint8(image[None])[0]), path)


def save_grid(images: Images, path: Path, columns: int | None = None, margin: int = 2) -> None:
    """All images in one PNG, row by row on white.

    Args:
        images: in [0, 1].
        path: the file; its folder is created.
        columns: images a row; a near-square grid where None.
        margin: white pixels between images.
    """
    grid = Grid(len(images), columns, margin)
    grid.add(images)
    grid.save(path)


class Grid:
    """A PNG of many images, row by row on white, that are added as they are made.

    Where the grid would be longer than `LONGEST_SIDE`, images are shrunk to a half, a third, a quarter of their size as
    they are added, so that its memory does not grow with their number.

    Args:
        count: images in all.
        columns: images a row; a near-square grid where None.
        margin: white pixels between images.
    """

    def __init__(self, count: int, columns: int | None = None, margin: int = 2):
        self.columns = columns or math.ceil(math.sqrt(count))
        self.rows = math.ceil(count / self.columns)
        self.margin = margin
        self.sheet: Image.Image | None = None
        self.filled = 0

    def add(self, images: Images) -> None:
        """The next images, in [0, 1], all of one size."""
        pixels = to_uint8(images)
        height, width = pixels.shape[1:3]
        shrunk = self._shrunk(height, width)
        height, width = (math.ceil(side / shrunk) + self.margin for side in (height, width))
        if self.sheet is None:
            size = (self.columns * width - self.margin, self.rows * height - self.margin)
            self.sheet = Image.new("RGB", size, "white")
        for index, tile in enumerate(pixels, self.filled):
            place = (index % self.columns * width, index // self.columns * height)
            self.sheet.paste(Image.fromarray(tile).reduce(shrunk), place)
        self.filled += len(pixels)

    def _shrunk(self, height: int, width: int) -> int:
        """How often an image's sides are divided; 1 where all fit as they are, and for a single image."""
        if self.columns * self.rows == 1:
            return 1

        def longest(shrunk: int) -> int:
            sides = ((self.rows, height), (self.columns, width))
            return max(count * (math.ceil(side / shrunk) + self.margin) - self.margin for count, side in sides)

        most = max(height, width)
        return next((shrunk for shrunk in range(1, most) if longest(shrunk) <= LONGEST_SIDE), most)

    def save(self, path: Path) -> None:
        """Write it; the file's folder is created.

        Raises:
            ValueError: no image was added.
        """
        if self.sheet is None:
            raise ValueError("A grid needs at least one image.")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(self.sheet, path)
