r"""Integral KL that begins at noisy times and beside the generator, and ends as itself (DMDR's dynamic distillation).

DMDR (Jiang et al. 2025, "Distribution Matching Distillation Meets Reinforcement Learning", arXiv 2511.13649) joins
rewards to a distillation from its first updates on. Its joint objective is DI++'s, $-\alpha_{rew} E\, r + D_{IKL}$ with
rewards as terms of their own (its latest abstract calls the beginning reward-tilted distribution matching, whose
formula has not been seen: the KL to $q\, e^{r/\beta}$ is that sum at $t = 0$, and `diffused_reward` has it at every t).
What it adds are two strategies for the first N updates, in which a generator is far from its teacher. With
$c_n = \frac12 (1 + \cos \pi n/N)$ until update N and 0 from there on,

$$\nabla_{x_0} = (1 - \gamma c_n)\; E_{t, \epsilon}\big[\rho_n(t)\, w(t) (\alpha_t/\sigma_t)^2
    (\hat x_0^\psi - \hat x_0^{ref})\big].$$

- **Dynamic renoise sampling.** $\rho_n$ is the density of a Beta law of the place of t in its range, with the shape
  $1 + (a - 1) c_n$, $1 + (b - 1) c_n$: noisy times first, every time alike at the end. DMDR draws its times from that
  law, with $a = 4$, $b = 1.5$ as the defaults of its code; here they keep the run's own and are weighed by it, which is
  the same in the mean.
- **Dynamic distribution guidance.** The teacher is compared with the generator from a point between both,
  $\hat x_0^{ref} + \gamma c_n (\hat x_0^\psi - \hat x_0^{ref})$. DMDR moves the teacher's weights by a LoRA of the
  generator's score, whose scale is $\gamma c_n$ with $\gamma = 0.25$; between predictions, as here, it is a factor of
  the gradient: against a reward it means that the reward weighs more at first. That form is ours.

It minimises $(1 - \gamma c_n) \int w \rho_n KL(p_t \| q_t)\, dt$ at update n. Without a reward the reference is the
optimum at every n; with one the optimum moves from that of the weights $w \rho_0$ and a larger reward to the integral
KL's own, where it stays from update N on. DMDR lets rewards in after a cold start: `scale_schedule=0:0,N:1`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ...diffusion.schedules import expand_like
from ...diffusion.times import TimeLaw
from ..base import TermContext
from ..gaussians import GaussianProblem, Verification, average_kl
from .divergence import Noised
from .integral_kl import IntegralKL
from .options import option

INSIDE = 1e-6
"""How near to the ends of the range a place may be: there the density of a Beta law has no number."""


@dataclass
class DynamicKL(IntegralKL):
    r"""Integral KL term with DMDR's two strategies for a beginning. Its value and its gradient have both factors.

    Attributes:
        updates: N, generator updates until it is the integral KL; 0 for none.
        noisy: a, above b for noisy times.
        clean: b.
        share: $\gamma$, how far towards the generator the reference begins.
    """

    verification: ClassVar[Verification] = Verification(variants=({"updates": 100},), steps=(0, 50, 299))

    updates: Annotated[int, Field(ge=0)] = option(1000, "generator updates until it is the integral KL")
    noisy: Annotated[float, Field(ge=1, allow_inf_nan=False)] = option(
        4.0, "first shape of the times' Beta law at the start, 1 or more"
    )
    clean: Annotated[float, Field(ge=1, allow_inf_nan=False)] = option(
        1.5, "second shape of the times' Beta law at the start, 1 or more"
    )
    share: Annotated[float, Field(ge=0, lt=1)] = option(
        0.25, "how far towards the generator the reference begins, 0 or more and below 1"
    )

    def remaining(self, step: int) -> float:
        r"""$c_n$ at update n, the first being 0: from 1 to 0."""
        return 0.5 * (1 + math.cos(math.pi * step / self.updates)) if step < self.updates else 0.0

    def density(self, place: Float[Tensor, "*times"], step: int) -> Float[Tensor, "*times"]:
        r"""$\rho_n$ at places in the range of times, in [0, 1]; its mean over them is 1."""
        left = self.remaining(step)
        if left == 0:
            return torch.ones_like(place)
        first, second = 1 + (self.noisy - 1) * left, 1 + (self.clean - 1) * left
        size = math.lgamma(first) + math.lgamma(second) - math.lgamma(first + second)
        place = place.clamp(INSIDE, 1 - INSIDE)
        return ((first - 1) * place.log() + (second - 1) * (1 - place).log() - size).exp()

    def factor(self, noisy: Noised, x0_reference: Tensor, x0_assistant: Tensor) -> Tensor:
        r"""$(1 - \gamma c_n)\, \rho_n(t)\, w(t) (\alpha_t/\sigma_t)^2$."""
        own = super().factor(noisy, x0_reference, x0_assistant)
        assert isinstance(self.sampling, TimeLaw)
        place = (noisy.t - self.sampling.low) / (self.sampling.high - self.sampling.low)
        dynamic = (1 - self.share * self.remaining(noisy.step)) * self.density(place, noisy.step)
        return expand_like(dynamic, noisy.x_t) * own

    def closed_form(self, problem: GaussianProblem) -> Tensor:
        r"""$(1 - \gamma c_n) \int w(t)\, \rho_n(t)\, KL(p_t \| q_t)\, dt$ at the problem's update."""
        assert problem.places is not None
        weighed = replace(problem, weights=problem.weights * self.density(problem.places, problem.step))
        return (1 - self.share * self.remaining(problem.step)) * average_kl(problem.law, problem.target, weighed)


def build(context: TermContext) -> DynamicKL:
    """The term as the run's settings ask for it."""
    return DynamicKL.build(context)
