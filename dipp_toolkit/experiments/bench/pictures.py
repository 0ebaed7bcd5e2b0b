"""The few small pictures that a row carries."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from ...protocols import PromptSet
from ...utils.images import data_address
from .rows import Picture
from .store import ImageStore

SIDE = 192
"""Larger images are made smaller, to at most so many pixels a side."""
LOSSLESS = 96
"""Images up to this side stay PNG."""


def small_address(store: ImageStore, key: str) -> str:
    """A stored image, small, as a `data:` address."""
    with Image.open(store.path(key), formats=("PNG",)) as opened:
        image = opened.convert("RGB")
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    if max(image.size) <= LOSSLESS:
        return data_address(image, "png", optimize=True)
    return data_address(image, "webp", quality=80)


def pictures_of(
    prompts: PromptSet, keys: Sequence[str], seeds: Sequence[int], count: int, store: ImageStore
) -> tuple[Picture, ...]:
    """Pictures of `count` prompts, evenly over the set, each with its first seed."""
    total = len(prompts.prompts)
    pictures = []
    for index in sorted({k * total // max(count, 1) for k in range(min(count, total))}):
        prompt = prompts.prompts[index]
        data = small_address(store, keys[index * len(seeds)])
        pictures.append(Picture(prompt=prompt.text, seed=seeds[0], category=prompt.category, data=data))
    return tuple(pictures)
