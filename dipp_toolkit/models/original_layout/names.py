"""Names of tensors from one code to another, and rows that stand in another order."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def replaced(name: str, parts: Mapping[str, str]) -> str:
    """A name with every part replaced that stands between dots, or at an end; of two that overlap the longer one.

    Args:
        name: such as `down.0.block.1.norm1.weight`.
        parts: theirs by ours, each of one or more whole words between dots.
    """
    words = f".{name}."
    for ours in sorted(parts, key=len, reverse=True):
        words = words.replace(f".{ours}.", f".{parts[ours]}.")
    return words[1:-1]


def halves_swapped(tensor: Tensor) -> Tensor:
    """Rows with their halves exchanged: diffusers has scale before shift where the original code has shift first."""
    first, second = tensor.chunk(2)
    return torch.cat([second, first])
