"""The Gaussian world at any time, where the one that assistants are copied from knows a grid of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import nn

from ..diffusion.condition import Condition
from ..diffusion.denoiser import Denoiser
from ..diffusion.schedules import Schedule
from ..objective.gaussians import Gaussian
from ..protocols import Latents
from .network import GIVEN
from .world import GaussianReference


@dataclass(frozen=True)
class FormulaDenoiser(Denoiser):
    """$E[x_0 | x_t]$ of a Gaussian that a prompt moves, as a formula instead of a network.

    Attributes:
        empty: the law without a prompt.
        given: the law with one, of the same covariance.
    """

    empty: Gaussian
    given: Gaussian

    @classmethod
    def of(cls, empty: Gaussian, given: Gaussian, schedule: Schedule) -> FormulaDenoiser:
        """The denoiser of the two laws."""
        return cls(nn.Identity(), schedule, "sample", lambda network, x_t, time, condition: x_t, empty, given)

    def predict_x0(self, x_t: Latents, t: Float[torch.Tensor, " batch"], condition: Condition) -> Latents:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        moved = condition.tensors[GIVEN] * (self.given.mean - self.empty.mean)
        denoised = self.empty.denoise(x_t.flatten(1) - alpha[:, None] * moved, alpha, sigma) + moved
        return denoised.reshape(x_t.shape)


@dataclass
class AnyTimeReference(GaussianReference):
    """The world's reference, to be asked at every time and not to be copied; `times` says nothing here."""

    def __post_init__(self) -> None:
        self.denoiser = FormulaDenoiser.of(self.empty, self.given, self.schedule)

    @classmethod
    def like(cls, reference: GaussianReference, schedule: Schedule) -> AnyTimeReference:
        """The laws of a reference under another forward process."""
        return cls(reference.empty, reference.given, schedule, reference.times)
