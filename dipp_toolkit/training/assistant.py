r"""The assistant: a trainable copy of the reference that learns the score of the generator's own samples.

It is trained by denoising score matching on $x_0$ held fixed (DI++, arXiv 2410.18881, algorithm 1):

$$\min_\psi E_{t, \epsilon}\, \lambda(t)\, |\hat x_0^\psi(\alpha_t x_0 + \sigma_t \epsilon, t, c) - x_0|^2, \qquad
  \lambda(t) = \min(\alpha_t^2/\sigma_t^2, 5) + 0.1.$$

Any positive $\lambda$ has the same optimum; this one is Hang et al.'s (2023) min-SNR weight with a floor, so that the
noisiest times, where the prompt decides, are learnt too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.condition import Condition
from ..diffusion.denoiser import Denoiser
from ..diffusion.schedules import Schedule, add_noise
from ..diffusion.times import Sampling, UniformTimes, clamped_snr, usable_draw
from ..distributed.gradient_average import GradientAverage
from ..errors import BadNumbers
from ..models.activation_offload import ActivationOffload
from ..models.attention import GraphAttention
from ..models.weight_sharing import load_trainable_state, trainable_parameters, trainable_state
from ..protocols import ScoreModel
from ..utils.device import read_scalars
from ..utils.precision import pass_autocast
from .optim import LossScale, clipped_norm, load_optimizer


def denoising_loss(
    denoiser: ScoreModel,
    schedule: Schedule,
    x0: Tensor,
    condition: Condition,
    sampling: Sampling,
    random: torch.Generator,
) -> Tensor:
    r"""Denoising score matching, $\mathrm{mean}\, \lambda(t) |\hat x_0 - x_0|^2$ per dimension; a scalar.

    Args:
        denoiser: the network that learns.
        schedule: its schedule.
        x0: clean samples, `(batch, ...)`.
        condition: one row a sample.
        sampling: draws times and noises; its times are moved into the schedule's usable ones.
        random: the random source.
    """
    draw = usable_draw(sampling, schedule, x0, random)
    x_t = add_noise(schedule, x0, draw.noise, draw.t)
    error = (denoiser.predict_x0(x_t, draw.t, condition) - x0).square().flatten(1).mean(1)
    return (clamped_snr(schedule, draw.t) * error).mean()


@dataclass
class LearnedAssistant:
    """A trainable copy of a denoiser (all of its weights, or an adapter), with its optimiser.

    Attributes:
        denoiser: the trainable copy.
        optimizer: over its parameters.
        sampling: how its times and noises are drawn.
        max_grad_norm: gradients are clipped to this norm.
        precision: autocast dtype of the network pass, None for none.
        average: of its gradients over the processes that share the batch.
        scale: of its loss, under float16.
        attention: context of its passes with a graph.
        offload: context of its forward passes with a graph.
    """

    denoiser: Denoiser
    optimizer: torch.optim.Optimizer
    sampling: Sampling = field(default_factory=UniformTimes)
    max_grad_norm: float = 1.0
    precision: torch.dtype | None = None
    average: GradientAverage | None = None
    scale: LossScale = field(default_factory=LossScale)
    attention: GraphAttention = field(default_factory=GraphAttention)
    offload: ActivationOffload = field(default_factory=ActivationOffload)

    def predict_x0(
        self, x_t: Float[Tensor, "batch ..."], t: Float[Tensor, " batch"], condition: Condition
    ) -> Float[Tensor, "batch ..."]:
        return self.denoiser.predict_x0(x_t, t, condition)

    def update(self, x0: Float[Tensor, "batch ..."], condition: Condition, random: torch.Generator) -> float:
        """Fit a batch of the generator's samples, held fixed; returns the loss.

        Raises:
            BadNumbers: the loss or its gradient is not finite; nothing has changed then.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.accumulate(x0, condition, random)
        numbers = read_scalars({"loss": loss, "norm": self.gradient_norm()})
        if not math.isfinite(numbers["norm"]):
            raise BadNumbers("The assistant's gradient is not finite.")
        self.optimizer.step()
        return numbers["loss"]

    def accumulate(
        self,
        x0: Float[Tensor, "batch ..."],
        condition: Condition,
        random: torch.Generator,
        share: float = 1.0,
        last: bool = True,
    ) -> Float[Tensor, ""]:
        """Add one pass's gradient to those that are there.

        Args:
            x0: the generator's samples.
            condition: one row a sample.
            random: the random source.
            share: of the batch that the pass is.
            last: whether the gradients are complete with it.

        Returns:
            The pass's share of the loss.
        """
        with pass_autocast(x0.device.type, self.precision), self.attention(), self.offload():
            loss = share * denoising_loss(self, self.denoiser.schedule, x0, condition, self.sampling, random)
        if self.average is not None and last:
            self.average.arm()
        with self.attention():  # blocks that are recomputed take the kernels they took before
            (loss * self.scale.factor).backward()
        return loss.detach()

    def gradient_norm(self) -> Float[Tensor, ""]:
        """The norm of the accumulated gradient, averaged over the processes; it is clipped from now on."""
        if self.average is not None:
            self.average.finish()
        parameters = trainable_parameters(self.denoiser.network)
        self.scale.unscale(parameters)
        return clipped_norm(parameters, self.max_grad_norm)

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": trainable_state(self.denoiser.network),
            "optimizer": self.optimizer.state_dict(),
            "scale": self.scale.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_trainable_state(self.denoiser.network, state["network"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.scale.load_state_dict(state["scale"])
