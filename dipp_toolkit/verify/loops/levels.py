"""Noise levels by a network's own timestep."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import RunError

TRAINING_TIMES = 1000
"""Timesteps of training, as Stable Diffusion, PixArt, SD3 and Flux count them."""

LEAST_SIGMA = 1e-4
"""Below it a noise level counts as this much: what networks predict of the noise is 0/0 at 0."""

Forward = Literal["vp", "flow"]


@dataclass(frozen=True)
class Levels:
    r"""$\alpha$ and $\sigma$ of each timestep.

    Attributes:
        forward: `vp`, variance preserving on the timesteps 0 to 999 with Stable Diffusion's betas (`scaled_linear`,
            0.00085 to 0.012); or `flow`, the straight line $\sigma = timestep / 1000$, $\alpha = 1 - \sigma$.
    """

    forward: Forward

    @cached_property
    def alphas_cumprod(self) -> Float[Tensor, " times"]:
        r"""$\alpha^2$ of each timestep, where the schedule is variance preserving."""
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, TRAINING_TIMES, dtype=torch.float64).square()
        return (1 - betas).cumprod(0)

    def __call__(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma of timesteps, like them, float64.

        Raises:
            RunError: a timestep lies outside training's.
        """
        last = TRAINING_TIMES - 1 if self.forward == "vp" else TRAINING_TIMES
        low, high = timestep.min().item(), timestep.max().item()
        if not (low >= 0 and high <= last + 1e-3):
            raise RunError(
                f"A network was asked at a timestep of {high if high > last else low:g}; this world's lie between 0 "
                f"and {last}."
            )
        if self.forward == "vp":
            square = self.alphas_cumprod[timestep.round().long()]
            return square.sqrt(), (1 - square).sqrt()
        sigma = (timestep.double() / TRAINING_TIMES).clamp(LEAST_SIGMA, 1)
        return 1 - sigma, sigma

    def part(self, timestep: Tensor, count: int) -> Tensor:
        """Which of `count` equal parts of the range each timestep lies in."""
        return (timestep * count / TRAINING_TIMES).long().clamp(0, count - 1)
