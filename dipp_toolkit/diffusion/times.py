r"""Which times a divergence looks at, and how much each weighs: $D_{IKL} = \int w(t)\, KL(p_t \| q_t)\, dt$.

The gradient of the integral KL is $w(t) (\alpha_t/\sigma_t)^2 (\hat x_0^\psi - \hat x_0^{ref})$; a weighting returns
the whole factor before the difference, because for one of them (`dmd`) it depends on the sample. The formula is that of
`dipp_toolkit.objective.terms.integral_kl` (DI++, eq. 3.1), where guidance is
`dipp_toolkit.objective.terms.divergence.guided_x0`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..distributed.shared_draws import normal, permutation
from ..distributed.shared_draws import uniform as uniform_numbers
from ..errors import RequestError
from ..utils.messages import unknown_name
from .schedules import Schedule, at_usable_times


@dataclass(frozen=True)
class Draw:
    """Times and noises for a batch of samples.

    Attributes:
        t: in [0, 1]; float32 or wider, since bfloat16 has too few numbers for a thousand times.
        noise: standard normal, like the samples.
    """

    t: Float[Tensor, " batch"]
    noise: Float[Tensor, "batch ..."]


@runtime_checkable
class Sampling(Protocol):
    """Draws a time and a noise for each sample."""

    def __call__(self, x0: Float[Tensor, "batch ..."], random: torch.Generator) -> Draw:
        """Times in [0, 1], float32 or wider, and standard normal noise, like `x0`."""


@runtime_checkable
class TimeLaw(Protocol):
    """A `Sampling` that knows the law of its times, so that averages over them become integrals over time."""

    @property
    def low(self) -> float:
        """Where the range of times begins."""

    @property
    def high(self) -> float:
        """Where it ends."""

    def importance(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Density of the uniform law on the range over that of the times drawn, at each of these times."""


def usable_draw(
    sampling: Sampling, schedule: Schedule, x0: Float[Tensor, "batch ..."], random: torch.Generator
) -> Draw:
    """What a sampling draws, its times at those where a schedule has both signal and noise.

    A range of times may reach to 0 and to 1, where a schedule may have none of one of them; such times are moved to the
    nearest that it can express (`dipp_toolkit.diffusion.schedules.usable_times`). All other times are as drawn.
    """
    draw = sampling(x0, random)
    return replace(draw, t=at_usable_times(schedule, draw.t))


@dataclass(frozen=True)
class UniformTimes:
    """Times uniform in `[low, high)`, stratified over the batch: one from each of B equal slices, in random order.

    Stratifying leaves each time's law uniform and removes most of the batch-to-batch variance.
    """

    low: float = 0.02
    high: float = 0.98

    def __call__(self, x0: Float[Tensor, "batch ..."], random: torch.Generator) -> Draw:
        slices, count = permutation(len(x0), random)
        fraction = (slices + uniform_numbers(len(x0), random)) / count
        noise = normal(x0.shape, random, x0.dtype)
        t = self.low + (self.high - self.low) * self.spread(fraction)
        return Draw(t.to(torch.promote_types(x0.dtype, torch.float32)), noise)

    def spread(self, fraction: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """From fractions even in [0, 1) to places in the range."""
        return fraction

    def importance(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """1 everywhere."""
        return torch.ones_like(t)


LARGEST_LOGIT = 3.0
"""Of a place in the range; 0.27 % of logit-normal times are further out."""


@dataclass(frozen=True)
class LogitNormalTimes(UniformTimes):
    r"""Times whose place $u$ in `[low, high)` has a standard normal logit, $\log u/(1-u) \sim N(0, 1)$: the middle of
    the range more often than its ends (Esser et al. 2024, Stable Diffusion 3, section 3.1). Stratified, too.

    A divergence's effective $w(t)$ is its weighting's times this density.
    """

    def spread(self, fraction: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        return torch.special.ndtri(fraction.double()).sigmoid().to(fraction.dtype)

    def importance(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        r"""$u (1 - u) / \phi(\log \frac{u}{1 - u})$ at the place u of a time, $\phi$ being the normal density.

        Beyond a logit of 3 either way, the outer 5 % of the range at each end, it is held at its value there, 10:
        without that its variance would be infinite. What those times add to an integral is counted too little.
        """
        place = (t - self.low) / (self.high - self.low)
        logit = torch.logit(place, eps=1e-6).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
        share = logit.sigmoid()
        return share * (1 - share) * math.sqrt(2 * math.pi) * (logit.square() / 2).exp()


SAMPLINGS: dict[str, Callable[[float, float], Sampling]] = {"uniform": UniformTimes, "logit-normal": LogitNormalTimes}


def find_sampling(name: str, low: float, high: float) -> Sampling:
    """The time sampling of this name over the times `[low, high)`.

    Raises:
        RequestError: the name is unknown; the message names the nearest.
    """
    if name not in SAMPLINGS:
        raise RequestError(unknown_name("time sampling", name, SAMPLINGS))
    return SAMPLINGS[name](low, high)


@dataclass(frozen=True)
class WeightingInputs:
    """What a weighting may look at: coefficients broadcastable to `x0`, the sample, and both denoised samples."""

    alpha: Tensor
    sigma: Tensor
    x0: Tensor
    x0_reference: Tensor
    x0_assistant: Tensor


Weighting = Callable[[WeightingInputs], Tensor]
r"""Returns $w(t) (\alpha_t/\sigma_t)^2$, broadcastable to `x0`."""


def uniform(inputs: WeightingInputs) -> Tensor:
    r"""$w(t) = 1$: the integral KL as written (DI++, eq. 3.1, `dipp_toolkit.objective.terms.integral_kl`)."""
    return (inputs.alpha / inputs.sigma).square()


def snr(inputs: WeightingInputs) -> Tensor:
    r"""$w(t) = \sigma_t^2/\alpha_t^2$, the inverse SNR: the factor is 1, every time weighs the same in $x_0$ (SDS's
    $\sigma_t^2$ up to $\alpha_t^2$)."""
    return torch.ones_like(inputs.alpha)


def dmd(inputs: WeightingInputs) -> Tensor:
    r"""DMD's normalised weighting (Yin et al. 2024, eq. 8): $1 / \mathrm{mean}|x_0 - \hat x_0^{ref}|$ of each sample.

    It depends on the sample, so no $w(t)$ belongs to it, but its gradients have the same size at every time. What is
    known of its optimum is derived in `verify/thorough/dmd_form.py`.
    """
    error = (inputs.x0 - inputs.x0_reference).abs().flatten(1).mean(1)
    return 1 / error.clamp(min=1e-6).reshape(inputs.alpha.shape)


WEIGHTINGS: dict[str, Weighting] = {"uniform": uniform, "snr": snr, "dmd": dmd}


def find_weighting(name: str) -> Weighting:
    """The weighting of this name.

    Raises:
        RequestError: the name is unknown; the message names the nearest.
    """
    if name not in WEIGHTINGS:
        raise RequestError(unknown_name("weighting", name, WEIGHTINGS))
    return WEIGHTINGS[name]


def clamped_snr(schedule: Schedule, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    r"""$\lambda(t) = \min(\alpha_t^2 / \sigma_t^2, 5) + 0.1$."""
    return (schedule.alpha(t) / schedule.sigma(t)).square().clamp(max=5) + 0.1
