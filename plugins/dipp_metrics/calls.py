"""Calls of an image source whose costs are measured."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.protocols import ImageSource


def call_with(source: ImageSource, prompts: Sequence[str], count: int, call: int) -> Tensor:
    """Make `count` images: the next prompts in turn, each with a seed of its own.

    Raises:
        RequestError: there is no prompt.
    """
    if not prompts:
        raise RequestError("Costs are measured with at least one prompt.")
    first = call * count
    chosen = [prompts[(first + index) % len(prompts)] for index in range(count)]
    return source.images(chosen, list(range(first, first + count)))


def wait_for(device: torch.device) -> None:
    """Return when the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
