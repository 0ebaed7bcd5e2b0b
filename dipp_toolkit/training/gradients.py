"""What is done to gradients between the backward pass and the optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

MARGIN = 1e-6
"""What torch adds to a norm before it divides by it."""


def clipped_norm(parameters: Sequence[nn.Parameter], largest: float) -> Float[Tensor, ""]:
    """Clip the gradient of all parameters together to a norm; returns the norm it had.

    Sharded parameters count whole: the norm is that of the full gradient, the same in every process.
    """
    norm: Any = nn.utils.get_total_norm([one.grad for one in parameters if one.grad is not None])
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    # On a CPU the norm is at hand, and where torch would multiply by one (its margin included) every gradient need not
    # be read and written once more. Elsewhere looking at it would make the host wait.
    if whole.device.type != "cpu" or not float(whole) + MARGIN <= largest:
        nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return whole
