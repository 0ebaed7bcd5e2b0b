r"""Muon: momentum, made orthogonal (Jordan et al. 2024), for matrices and for filters of convolutions.

Each update is $-0.2\, \eta \sqrt{\max(m, n)}\, O$ with $O \approx U V^T$ of the Nesterov momentum's singular value
decomposition $U S V^T$, by five steps of a Newton-Schulz iteration; the factor gives it the size of an AdamW update
(Liu et al. 2025). `torch.optim.Muon` is the same for matrices, but always iterates in bfloat16: on a processor that
emulates it, this takes longer than the network's passes. Ours iterates in what the processor computes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dipp_toolkit.utils.precision import native_autocast

STEPS = 5
COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Of the polynomial that is iterated: its slope at zero is the largest that keeps singular values within 0.7 to 1.2."""


def orthogonal(matrix: Tensor) -> Tensor:
    """About U V^T of a matrix `(m, n)` with the singular value decomposition U S V^T."""
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / wide.norm().clamp(min=1e-7)
    with native_autocast():
        for _ in range(STEPS):
            square = x @ x.T
            x = a * x + (b * square + c * square @ square) @ x
    return (x if wide is matrix else x.T).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Muon over weights of two or more dimensions; all but the first are taken as one.

    Args:
        parameters: matrices and filters.
        lr: learning rate, as for AdamW.
        weight_decay: share of a weight that is taken off, times the learning rate, in an update.
        momentum: of the average of gradients.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(list(parameters), {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all weights that have a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                average = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(average, group["momentum"]).flatten(1)
                size = 0.2 * math.sqrt(max(ahead.shape))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(orthogonal(ahead).view_as(weight), alpha=-group["lr"] * size)
