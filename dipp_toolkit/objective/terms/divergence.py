"""What all divergences share: noised samples, and their denoising by the reference and the assistant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...config import TrainConfig
from ...diffusion.condition import Condition
from ...diffusion.denoiser import Denoiser
from ...diffusion.schedules import Schedule, add_noise, expand_like
from ...diffusion.times import (
    Sampling,
    TimeLaw,
    UniformTimes,
    Weighting,
    WeightingInputs,
    find_sampling,
    find_weighting,
    uniform,
    usable_draw,
)
from ...protocols import Reference, ScoreModel, null_beside
from ...utils.piecewise_linear import PiecewiseLinear, value_at
from ...utils.step_parts import ASSISTANT_READ, REFERENCE, step_part
from ..base import Sample, TermContext, TermResult
from .kl_estimate import kl_estimate
from .options import read_options


@step_part(REFERENCE)
def guided_x0(
    reference: Reference,
    x_t: Float[Tensor, "batch ..."],
    t: Float[Tensor, " batch"],
    condition: Condition,
    guidance: float,
    denoiser: Denoiser | None = None,
) -> Float[Tensor, "batch ..."]:
    r"""The reference under guidance, $\hat x_0(\varnothing) + \alpha_{cfg} (\hat x_0(c) - \hat x_0(\varnothing))$.

    In `dipp_toolkit.objective.terms.integral_kl` it is an implicit reward (DI++, theorem 3.2).
    Both predictions run as one batch; where guidance is 1 the empty prompt is not evaluated at all. `denoiser`, of the
    same conditions, stands in for the reference's own.
    """
    denoiser = denoiser or reference.denoiser
    if guidance == 1:
        return denoiser.predict_x0(x_t, t, condition)
    both = Condition.cat([condition, null_beside(reference, condition).to(x_t.device)])
    given, empty = denoiser.predict_x0(torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)
    return empty + guidance * (given - empty)


@dataclass(frozen=True)
class Noised:
    r"""Samples under the forward process, $x_t = \alpha_t x_0 + \sigma_t \epsilon$.

    Attributes:
        x_t: noised samples, like `x0`.
        x0: the clean samples.
        t: times in [0, 1].
        noise: $\epsilon$.
        alpha: signal coefficients, broadcastable to `x_t`.
        sigma: noise coefficients, broadcastable to `x_t`.
        condition: what each sample was generated for.
        step: number of the generator update, from 0.
    """

    x_t: Float[Tensor, "batch ..."]
    x0: Float[Tensor, "batch ..."]
    t: Float[Tensor, " batch"]
    noise: Float[Tensor, "batch ..."]
    alpha: Tensor
    sigma: Tensor
    condition: Condition
    step: int = 0


def noised(schedule: Schedule, sample: Sample, sampling: Sampling) -> Noised:
    """Noise a batch of samples at times and with noises that `sampling` draws, the times within the schedule's usable
    ones."""
    draw = usable_draw(sampling, schedule, sample.x0, sample.random)
    x_t = add_noise(schedule, sample.x0, draw.noise, draw.t)
    alpha, sigma = expand_like(schedule.alpha(draw.t), x_t), expand_like(schedule.sigma(draw.t), x_t)
    return Noised(x_t, sample.x0, draw.t, draw.noise, alpha, sigma, sample.condition, sample.step)


D = TypeVar("D", bound="Divergence")


@dataclass
class Divergence:
    r"""The fields of every divergence; each term adds its own formula and options.

    Attributes:
        reference: the frozen diffusion model.
        assistant: score model of the generator's samples.
        guidance: $\alpha_{cfg}$, 1 for none: a number, or one for each generator update.
        weighting: $w(t) (\alpha_t/\sigma_t)^2$.
        sampling: how times and noises are drawn.
    """

    reference: Reference
    assistant: ScoreModel
    guidance: float | PiecewiseLinear = 1.0
    weighting: Weighting = uniform
    sampling: Sampling = field(default_factory=UniformTimes)

    @classmethod
    def check_settings(cls, name: str, config: TrainConfig) -> None:
        """Refuse options that the term does not have.

        Raises:
            RequestError: an option is unknown or its value is invalid.
        """
        read_options(cls, name, config.term_options.get(name, {}))

    @classmethod
    def build(cls: type[D], context: TermContext, **others: Any) -> D:
        """The term as the run's settings ask for it.

        Args:
            context: what the run consists of.
            others: fields that neither the settings nor the options fill.

        Raises:
            RequestError: an option is unknown or its value is invalid.
        """
        config = context.config
        return cls(
            context.reference,
            context.assistant,
            config.guidance_by_step,
            find_weighting(config.weighting),
            find_sampling(config.time_sampling, *config.time_range),
            **read_options(cls, context.name, context.options),
            **others,
        )

    @property
    def schedule(self) -> Schedule:
        """The reference's forward process."""
        return self.reference.denoiser.schedule

    def reference_x0(self, noisy: Noised) -> Float[Tensor, "batch ..."]:
        r"""$\hat x_0^{ref}(x_t)$ under the term's guidance at the samples' update."""
        return guided_x0(self.reference, noisy.x_t, noisy.t, noisy.condition, self.guidance_at(noisy.step))

    def guidance_at(self, step: int) -> float:
        r"""$\alpha_{cfg}$ at a generator update, the first being 0."""
        return value_at(self.guidance, step)

    @step_part(ASSISTANT_READ)
    def assistant_x0(self, noisy: Noised) -> Float[Tensor, "batch ..."]:
        r"""$\hat x_0^\psi(x_t)$."""
        return self.assistant.predict_x0(noisy.x_t, noisy.t, noisy.condition)

    @torch.no_grad()
    def explain(self, sample: Sample, result: TermResult) -> str:
        """Which network predicts what is not finite at times like those of the pass."""
        noisy = noised(self.schedule, sample, self.sampling)
        predictions = {"reference": self.reference_x0(noisy), "assistant": self.assistant_x0(noisy)}
        bad = [
            f"the {name}'s prediction is not finite"
            for name, prediction in predictions.items()
            if not torch.isfinite(prediction).all()
        ]
        return " and ".join(bad)

    def kl(self, noisy: Noised, x0_reference: Tensor, x0_assistant: Tensor) -> dict[str, Tensor]:
        """The detail `kl`: the integral KL in nats a dimension, see `kl_estimate`; nothing where the sampling does not
        say which law its times have."""
        if not isinstance(self.sampling, TimeLaw):
            return {}
        shares = kl_estimate(
            self.schedule, self.sampling, noisy.t.detach(), x0_assistant.detach(), x0_reference.detach()
        )
        return {"kl": shares.mean()}

    def factor(self, noisy: Noised, x0_reference: Tensor, x0_assistant: Tensor) -> Tensor:
        r"""$w(t) (\alpha_t/\sigma_t)^2$ of each sample, broadcastable to it; see `dipp_toolkit.diffusion.times`."""
        return self.weighting(WeightingInputs(noisy.alpha, noisy.sigma, noisy.x0, x0_reference, x0_assistant))
