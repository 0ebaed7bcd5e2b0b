"""Sizes and aspects of images as people write them: `768x512`, `4:3`. The width comes first, as on every picture.

In code a size is `(height, width)`, as tensors have it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import RequestError
from .messages import shown

Size = tuple[int, int]
"""Height and width, in pixels or in latents as the name says."""

MOST_ELONGATED = 8
"""The longest side of an aspect, in shortest ones. Published models were trained up to 4."""
SEXAGESIMAL = 60
"""YAML 1.1 reads 4:3 without quotes as a number in this base, `4 * 60 + 3`."""


def parse_size(text: str) -> Size:
    """`"768x512"`, width by height in pixels, as height and width: `(512, 768)`.

    Raises:
        RequestError: it is no such text, or a side is 0.
    """
    match = re.fullmatch(r"\s*(\d{1,6})\s*[xX×]\s*(\d{1,6})\s*", text, re.ASCII)
    if match is None or not all(map(int, match.groups())):
        raise RequestError(f"'{shown(text)}' is not the size of an image; expected WIDTHxHEIGHT in pixels: 768x512.")
    width, height = map(int, match.groups())
    return height, width


def size_text(size: Size) -> str:
    """Height and width as `"768x512"`, width by height."""
    height, width = size
    return f"{width}x{height}"


def parse_sizes(text: str) -> tuple[Size, ...]:
    """`"768x512,512x512"` as sizes.

    Raises:
        RequestError: see `parse_size`.
    """
    return tuple(parse_size(part) for part in text.split(","))


def sizes_text(sizes: Iterable[Size]) -> str:
    """Sizes as `"768x512,512x512"`."""
    return ",".join(map(size_text, sizes))


def parse_aspect(text: str) -> tuple[int, int]:
    """`"4:3"`, width to height, as `(4, 3)`.

    Raises:
        RequestError: it is no such text, a side is 0, or one side is more than 8 of the other.
    """
    match = re.fullmatch(r"\s*(\d{1,5})\s*:\s*(\d{1,5})\s*", text, re.ASCII)
    sides = tuple(map(int, match.groups())) if match is not None else (0, 0)
    if min(sides) < 1:
        raise RequestError(f"'{shown(text)}' is not an aspect; expected WIDTH:HEIGHT, two whole numbers: 4:3.")
    if max(sides) > MOST_ELONGATED * min(sides):
        raise RequestError(
            f"The aspect {shown(text)} is too long; expected one side to be at most {MOST_ELONGATED} of the other."
        )
    width, height = sides
    return width, height


def aspect_words(value: object) -> str:
    """An aspect as it was written: what YAML made of `4:3` without quotes, the number 243, is `"4:3"` again."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= SEXAGESIMAL:
        return f"{value // SEXAGESIMAL}:{value % SEXAGESIMAL}"
    return str(value)
