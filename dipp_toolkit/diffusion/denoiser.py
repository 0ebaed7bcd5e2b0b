"""A denoiser: a network, the schedule it was trained on, and what its output means."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor, nn

from ..utils.precision import matching_autocast
from .condition import Condition
from .predictions import Prediction, to_x0
from .schedules import Schedule, expand_like

Forward = Callable[[nn.Module, Tensor, Tensor, Condition], Tensor]
"""`forward(network, x_t, network_time, condition)`: the network's raw output, like `x_t`."""


@dataclass(frozen=True)
class Denoiser:
    r"""Predicts $\hat x_0 = E[x_0 | x_t]$ with a network of any architecture and any prediction type.

    It is without guidance; with it, the reference is `dipp_toolkit.objective.terms.divergence.guided_x0`, which the
    formula of `dipp_toolkit.objective.terms.integral_kl` (DI++, eq. 3.1) reads.

    The reference is a frozen denoiser, the assistant a trainable copy of it, and a one-step generator is a
    denoiser read out once, at a fixed time, from pure noise.

    Attributes:
        network: the module that holds the parameters.
        schedule: gives alpha, sigma and the network's time.
        prediction: what the network's output is.
        forward: calls the network; the only thing that knows its signature.
    """

    network: nn.Module
    schedule: Schedule
    prediction: Prediction
    forward: Forward

    def raw_output(self, x_t: Float[Tensor, "batch ..."], network_time: Tensor, condition: Condition) -> Tensor:
        """The network's own output, like `x_t`, whatever dtype its weights have."""
        with matching_autocast(self.network, x_t.device):
            return self.forward(self.network, x_t, network_time, condition).to(x_t.dtype)

    def predict_x0(
        self, x_t: Float[Tensor, "batch ..."], t: Float[Tensor, " batch"], condition: Condition
    ) -> Float[Tensor, "batch ..."]:
        """The denoised sample, float32 (float64 where `x_t` is), like `x_t`.

        Args:
            x_t: noised samples.
            t: times in [0, 1].
            condition: one row a sample.
        """
        output = self.raw_output(x_t, self.schedule.network_time(t), condition)
        alpha, sigma = expand_like(self.schedule.alpha(t), x_t), expand_like(self.schedule.sigma(t), x_t)
        return to_x0(self.prediction, output, x_t, alpha, sigma)

    def trainable_copy(self) -> Denoiser:
        """The same denoiser over a deep copy of the network, in float32 (or float64), all parameters trainable."""
        network = copy.deepcopy(self.network)
        if any(parameter.dtype.itemsize < 4 for parameter in network.parameters()):
            network = network.float()
        return replace(self, network=network.train().requires_grad_(True))

    def frozen(self) -> Denoiser:
        """This denoiser, its network switched to evaluation and its parameters frozen in place."""
        self.network.eval().requires_grad_(False)
        return self
