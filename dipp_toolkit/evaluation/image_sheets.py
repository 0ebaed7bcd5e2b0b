"""Many images of one size as a few lossless PNG sheets, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ..utils.images import to_uint8, write_png

LARGEST_SIDE = 4096
"""No sheet is wider or higher than this, unless one image is: every viewer opens it."""


def grid_shape(count: int, group: int, height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of a sheet: near square, columns a multiple of `group` where that fits, within `LARGEST_SIDE`."""
    most_columns, most_rows = max(1, LARGEST_SIDE // width), max(1, LARGEST_SIDE // height)
    columns = group * max(1, round((count * height / width) ** 0.5 / group))
    columns = min(columns, most_columns // group * group or most_columns, count)
    return min(most_rows, -(-count // columns)), columns


def write_sheets(
    images: Float[Tensor, "images 3 height width"], folder: Path, stem: str, group: int = 1
) -> tuple[list[str], int]:
    """Write images row by row as `<stem>-000.png`, `<stem>-001.png`, ...

    Args:
        images: in [0, 1], `(N, 3, H, W)`.
        folder: an existing folder.
        stem: start of the file names.
        group: so many neighbours stay in one row where they fit.

    Returns:
        The files' names, and how many images stand in a row.
    """
    pixels = to_uint8(images)
    count, height, width, _ = pixels.shape
    rows, columns = grid_shape(count, group, height, width)
    names: list[str] = []
    for start in range(0, count, rows * columns):
        chunk = pixels[start : start + rows * columns]
        used = -(-len(chunk) // columns)
        tiles = np.zeros((used * columns, height, width, 3), np.uint8)
        tiles[: len(chunk)] = chunk
        sheet = tiles.reshape(used, columns, height, width, 3).swapaxes(1, 2).reshape(used * height, columns * width, 3)
        names.append(f"{stem}-{len(names):03d}.png")
        write_png(Image.fromarray(sheet), folder / names[-1])
    return names, columns


def read_sheets(paths: list[Path], count: int, height: int, width: int) -> Float[Tensor, "images 3 height width"]:
    """The inverse of `write_sheets`: the first `count` images of the sheets.

    Raises:
        OSError: a sheet cannot be read.
        ValueError: the sheets are of another size, or hold fewer images.
    """
    if min(height, width) < 1:
        raise ValueError(f"{width}x{height} is not a size of images")
    parts = []
    for path in paths:
        try:
            with Image.open(path, formats=("PNG",)) as file:  # Pillow gives some other formats to programs
                sheet = np.asarray(file.convert("RGB"))
        except (Image.DecompressionBombError, SyntaxError) as error:  # the latter is what Pillow calls a broken PNG
            raise ValueError(f"the sheet {path.name} cannot be read: {error}") from error
        rows, columns = sheet.shape[0] // height, sheet.shape[1] // width
        if sheet.shape[:2] != (rows * height, columns * width):
            raise ValueError(f"the sheet {path.name} is not a grid of {width}x{height} images")
        parts.append(sheet.reshape(rows, height, columns, width, 3).swapaxes(1, 2).reshape(-1, height, width, 3))
    pixels = np.concatenate(parts) if parts else np.zeros((0, height, width, 3), np.uint8)
    if len(pixels) < count:
        raise ValueError(f"the sheets hold {len(pixels)} images instead of {count}")
    return torch.from_numpy(pixels[:count].copy()).movedim(-1, -3).float() / 255
