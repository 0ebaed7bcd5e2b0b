"""The smallest network that a Gaussian needs: affine in $x_t$, with weights of its own for each time of a finite grid.

Every denoiser of a Gaussian, read as epsilon, v, $x_0$ or velocity, is such a map. So one architecture holds the frozen
reference in closed form, and a trainable copy of it can represent the score of every affine generator exactly.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..diffusion.condition import Condition
from ..diffusion.denoiser import Denoiser
from ..diffusion.predictions import Prediction, from_x0
from ..diffusion.schedules import Schedule
from ..errors import RunError
from ..objective.gaussians import Gaussian

GIVEN = "given"
"""The condition's tensor, `(batch, 1)`: 1 where there is a prompt, 0 where it is empty."""


class AffinePerTime(nn.Module):
    """$W_k x_t + u_k + h v_k$, with k the row of the network's time in a table and h the condition.

    Attributes:
        weight: $W$, one matrix a time.
        bias: $u$, one vector a time.
        shift: $v$, what a prompt adds, one vector a time.
        network_times: the table of times it knows.
    """

    network_times: Tensor

    def __init__(
        self,
        network_times: Tensor,
        weight: Float[Tensor, "times dimension dimension"],
        bias: Float[Tensor, "times dimension"],
        shift: Float[Tensor, "times dimension"],
    ) -> None:
        super().__init__()
        self.weight, self.bias, self.shift = nn.Parameter(weight), nn.Parameter(bias), nn.Parameter(shift)
        self.register_buffer("network_times", network_times.to(weight.dtype))

    def row(self, network_time: Tensor) -> Tensor:
        """Row of each time in the table, `(batch,)`.

        Raises:
            RunError: a time is not in the table.
        """
        distance, row = (network_time.to(self.network_times.dtype)[:, None] - self.network_times).abs().min(1)
        if (distance > 1e-3).any():
            raise RunError(
                "A term used a time outside the Gaussian world's grid of times. "
                "Draw times with the term's `sampling`, inside the `time_range` of its settings."
            )
        return row

    def forward(
        self, x_t: Float[Tensor, "batch ..."], network_time: Tensor, given: Float[Tensor, "batch 1"]
    ) -> Float[Tensor, "batch ..."]:
        row = self.row(network_time)
        moved = torch.einsum("bij,bj->bi", self.weight[row], x_t.flatten(1))
        return (moved + self.bias[row] + given.to(x_t.dtype) * self.shift[row]).reshape(x_t.shape)


def call_affine(network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
    """The network's raw output; the `forward` of its denoiser."""
    return network(x_t, network_time, condition.tensors[GIVEN])


def closed_form_denoiser(
    empty: Gaussian, given: Gaussian, schedule: Schedule, prediction: Prediction, times: Float[Tensor, " times"]
) -> Denoiser:
    """The exact denoiser of a Gaussian that a prompt moves, as a network of any prediction type.

    The weights are read off the closed form: what it returns at 0 is the bias, at the unit vectors the columns.

    Args:
        empty: the law without a prompt.
        given: the law with one, of the same covariance.
        schedule: the forward process.
        prediction: what the network's output means.
        times: the times in [0, 1] it knows; sigma is zero at none of them.

    Returns:
        A denoiser over an `AffinePerTime` network in the dtype of `empty`.
    """
    dimension, dtype = len(empty.mean), empty.mean.dtype
    probes = torch.cat([torch.zeros(1, dimension, dtype=dtype), torch.eye(dimension, dtype=dtype)])

    def outputs(law: Gaussian, t: Tensor) -> Tensor:
        t = t.to(dtype).expand(len(probes))
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        x0 = law.denoise(probes, alpha, sigma)
        return from_x0(prediction, x0, probes, alpha[:, None], sigma[:, None])

    without = torch.stack([outputs(empty, t) for t in times])
    bias = without[:, 0]
    weight = (without[:, 1:] - without[:, :1]).mT
    shift = torch.stack([outputs(given, t)[0] for t in times]) - bias
    network = AffinePerTime(schedule.network_time(times.to(dtype)), weight.contiguous(), bias, shift)
    return Denoiser(network, schedule, prediction, call_affine)
