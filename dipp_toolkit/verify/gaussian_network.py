r"""A Gaussian as a network: its mean and covariance are the weights, and it answers at every time.

It is what a diffusion model trained on Gaussian data would be: it is told the network's own time, knows the process it
was trained under, and gives an epsilon, a v, a velocity or $x_0$. A trainable copy of it represents the score of every
affine generator exactly, with as many weights as the law has numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..diffusion.denoiser import Denoiser
from ..diffusion.predictions import Prediction
from ..diffusion.schedules import FlowMatching, Schedule, TrigFlow, VariancePreserving
from ..errors import RequestError
from ..objective.gaussians import Gaussian
from .network import call_affine

Coefficients = Callable[[Tensor], tuple[Tensor, Tensor]]
"""alpha and sigma, `(batch,)` each, of the network's own times, `(batch,)`."""


class GaussianNetwork(nn.Module):
    r"""$E[x_0 | x_t]$ of $N(m, F F^T)$, m moved by a prompt, as what a network of some prediction type gives.

    Args:
        empty: the law without a prompt.
        given: the law with one, of the same covariance.
        prediction: what the output means.
        coefficients: the process it knows.
    """

    def __init__(self, empty: Gaussian, given: Gaussian, prediction: Prediction, coefficients: Coefficients) -> None:
        super().__init__()
        self.prediction, self.coefficients = prediction, coefficients
        self.mean, self.shift = nn.Parameter(empty.mean.clone()), nn.Parameter(given.mean - empty.mean)
        values, vectors = torch.linalg.eigh(empty.covariance)
        self.factor = nn.Parameter(vectors @ values.clamp_min(0).sqrt().diag() @ vectors.mT)

    def forward(
        self, x_t: Float[Tensor, "batch ..."], network_time: Tensor, given: Float[Tensor, "batch 1"]
    ) -> Float[Tensor, "batch ..."]:
        x, dtype = x_t.flatten(1), self.mean.dtype
        alpha, sigma = (values.to(dtype)[:, None] for values in self.coefficients(network_time))
        moved = given.to(dtype) * self.shift
        law = Gaussian(self.mean, self.factor @ self.factor.mT)
        x0 = moved + law.denoise(x.to(dtype) - alpha * moved, alpha[:, 0], sigma[:, 0])
        noise = (x - alpha * x0) / sigma
        match self.prediction:
            case "sample":
                output = x0
            case "epsilon":
                output = noise
            case "v_prediction":
                output = alpha * noise - sigma * x0
            case "velocity":
                output = noise - x0
            case _:
                assert_never(self.prediction)
        return output.reshape(x_t.shape)


def coefficients_of(schedule: Schedule) -> Coefficients:
    """The process of one of the toolkit's schedules, from the network's side.

    Raises:
        RequestError: another schedule, whose network's times mean nothing known.
    """
    if isinstance(schedule, VariancePreserving):
        squared = schedule.alphas_cumprod.double()

        def of_the_table(time: Tensor) -> tuple[Tensor, Tensor]:
            there = squared.to(time.device)[time.long()]
            return there.sqrt(), (1 - there).sqrt()

        return of_the_table
    if isinstance(schedule, FlowMatching):
        scale = schedule.network_scale
        return lambda time: (1 - time / scale, time / scale)
    if isinstance(schedule, TrigFlow):
        return lambda angle: (angle.cos(), angle.sin())
    raise RequestError(
        f"What a network's time means under a {type(schedule).__name__} is not known. Give gaussian_denoiser "
        "coefficients: a function from the network's times to alpha and sigma."
    )


def gaussian_denoiser(
    empty: Gaussian,
    given: Gaussian,
    schedule: Schedule,
    prediction: Prediction = "v_prediction",
    coefficients: Coefficients | None = None,
) -> Denoiser:
    """The exact denoiser of a Gaussian that a prompt moves, at every time, over a `GaussianNetwork`.

    Args:
        empty: the law without a prompt.
        given: the law with one, of the same covariance.
        schedule: the forward process.
        prediction: what the network's output means.
        coefficients: the process that the network knows; the schedule's unless given.

    Raises:
        RequestError: none are given, and the schedule is not one of the toolkit's.
    """
    network = GaussianNetwork(empty, given, prediction, coefficients or coefficients_of(schedule))
    return Denoiser(network, schedule, prediction, call_affine)
