"""A whole plugin in one file: a reward, and an ear for a run's steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dipp_toolkit import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

steps_heard: list[int] = []


class Warmth:
    """Red minus blue, mean over the pixels, times `strength`."""

    differentiable = True

    def __init__(self, strength: float = 1.0):
        self.strength = strength

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.strength * (images[:, 0] - images[:, 2]).mean((1, 2))


@hookimpl
def dipp_register_rewards(register: Any) -> None:
    register("warmth", Warmth, summary="warm colours")


@hookimpl
def dipp_on_step(event: Any) -> None:
    steps_heard.append(event.step)
