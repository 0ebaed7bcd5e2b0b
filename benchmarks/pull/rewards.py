"""Rewards of the benchmark: the emoji world's preference in three units, and README's blue."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from torch import Tensor

from dipp_toolkit import load_reward


@cache
def _preference() -> Any:
    return load_reward("emoji-preference")


def plain(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """The preference as it is."""
    scores: Tensor = _preference()(images, prompts)
    return scores


def small(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Its ten thousandth part."""
    return 1e-4 * plain(images, prompts)


def large(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Ten thousand times it."""
    return 1e4 * plain(images, prompts)


def halved(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Halved thirteen times, which rounds nothing."""
    return plain(images, prompts) / 2**13


def doubled(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Doubled thirteen times."""
    return plain(images, prompts) * 2**13


def nudged(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """One unit in the last place more."""
    return plain(images, prompts) * (1 + 2**-23)


def blueness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """As README has it."""
    return images[:, 2].mean((1, 2)) - images[:, :2].mean((1, 2, 3))
