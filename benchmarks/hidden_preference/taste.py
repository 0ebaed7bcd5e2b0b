"""A preference that no reward of the toolkit expresses: warm images are better than cool ones."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def warmth(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Red less blue, the mean over pixels."""
    return (images[:, 0] - images[:, 2]).mean((1, 2))
