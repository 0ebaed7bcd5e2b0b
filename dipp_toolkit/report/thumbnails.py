"""Images as `data:` addresses, so that the page needs no other file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ..pictures import to_uint8

LARGEST = 320
"""Larger images are shrunk to this many pixels on their longer side, and stored as JPEG."""
PIXEL_ART = 160
"""Images up to this many pixels are shown with hard pixel edges."""


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
    buffer, kind = io.BytesIO(), "png"
    if max(picture.size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        kind = "jpeg"
        picture.save(buffer, "JPEG", quality=88)
    else:
        picture.save(buffer, "PNG", optimize=True)
    source = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    return Thumbnail(source, alt, *picture.size)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` indices below `count`, evenly spaced from the first on."""
    chosen = min(count, most)
    return [index * count // chosen for index in range(chosen)]
