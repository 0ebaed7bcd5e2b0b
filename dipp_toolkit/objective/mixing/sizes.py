"""How large a gradient on samples is."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def root_mean_square(gradient: Float[Tensor, "batch ..."]) -> Float[Tensor, " batch"]:
    """Of each sample."""
    return gradient.flatten(1).square().mean(1).sqrt()


def mean_square(gradient: Float[Tensor, "batch ..."]) -> Float[Tensor, ""]:
    """Over the batch and all elements, in the widest numbers there are: a square of a small float32 may be none."""
    wide = torch.float32 if gradient.device.type == "mps" else torch.float64
    return gradient.detach().to(wide).square().mean()


def inverse(size: Tensor) -> Tensor:
    """1 over a size, 0 where that is 0."""
    return torch.where(size > 0, 1 / size, 0.0)
