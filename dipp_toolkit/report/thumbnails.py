"""Images as `data:` addresses, so that the page needs no other file."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ..utils.images import data_address, to_uint8

LARGEST = 320
"""Larger images are shrunk to this many pixels on their longer side, and stored as JPEG."""
PIXEL_ART = 160
"""Images up to this many pixels are shown with hard pixel edges."""
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Thumbnail:
    """An image for the page: its address, its text for those who do not see it, its own size in pixels."""

    source: str
    alt: str
    width: int
    height: int


def thumbnail(image: Float[Tensor, "3 height width"], alt: str) -> Thumbnail:
    """Encode an image in [0, 1]: losslessly where it is small, as JPEG where it had to be shrunk."""
    picture = Image.fromarray(to_uint8(torch.as_tensor(image)[None])[0])
    if max(picture.size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        source = data_address(picture, "jpeg", quality=88)
    else:
        source = data_address(picture, "png", optimize=True)
    return Thumbnail(source, alt, *picture.size)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` indices below `count`, rising: one from each of equal slices.

    The place inside a slice follows multiples of the golden ratio. A fixed stride would fall in step with lists that
    repeat, as prompts often do (every eighth on the same background, say).
    """
    chosen = min(count, most)
    edges = [index * count // chosen for index in range(chosen)] + [count]
    return [low + int(index * GOLDEN % 1 * (high - low)) for index, (low, high) in enumerate(pairwise(edges))]
