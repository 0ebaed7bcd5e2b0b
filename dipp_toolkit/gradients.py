"""What is done to gradients between the backward pass and the optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn


def clipped_norm(parameters: Sequence[nn.Parameter], largest: float) -> Float[Tensor, ""]:
    """Clip the gradient of all parameters together to a norm; returns the norm it had.

    Sharded parameters count whole: the norm is that of the full gradient, the same in every process.
    """
    norm: Any = nn.utils.clip_grad_norm_(parameters, largest)
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole
