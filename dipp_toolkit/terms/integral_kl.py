r"""The integral KL divergence, and classifier-free guidance as its implicit reward.

$D_{IKL}(p, q) = \int w(t)\, KL(p_t \| q_t)\, dt$ (Luo et al. 2023, Diff-Instruct). Its gradient with respect to a
sample is

$$\nabla_{x_0} = E_{t, \epsilon}\big[w(t)\, \alpha_t (s_\psi(x_t) - s_{ref}(x_t))\big]
              = E_{t, \epsilon}\big[w(t) (\alpha_t/\sigma_t)^2 (\hat x_0^\psi - \hat x_0^{ref})\big]$$

with both networks held fixed (DI++, arXiv 2410.18881, theorem 3.1). Replacing the reference's prediction by
$\hat x_0(x_t|\varnothing) + \alpha_{cfg} (\hat x_0(x_t|c) - \hat x_0(x_t|\varnothing))$ adds the reward
$\int w(t) \log q_t(x_t|c)/q_t(x_t)\, dt$ (theorem 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ..assistant import ScoreModel
from ..condition import Condition
from ..roles import Reference
from ..schedules import add_noise, expand_like
from .base import Sample, TermContext, TermResult
from .times import Sampling, UniformTimes, Weighting, WeightingInputs, find_weighting, uniform


def guided_x0(
    reference: Reference,
    x_t: Float[Tensor, "batch ..."],
    t: Float[Tensor, " batch"],
    condition: Condition,
    guidance: float,
) -> Float[Tensor, "batch ..."]:
    r"""The reference under guidance, $\hat x_0(\varnothing) + \alpha_{cfg} (\hat x_0(c) - \hat x_0(\varnothing))$.

    Both predictions run as one batch; where guidance is 1 the empty prompt is not evaluated at all.
    """
    if guidance == 1:
        return reference.denoiser.predict_x0(x_t, t, condition)
    both = Condition.cat([condition, reference.null(len(condition)).to(x_t.device)])
    given, empty = reference.denoiser.predict_x0(torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)
    return empty + guidance * (given - empty)


@dataclass
class IntegralKL:
    r"""Integral KL term. Its value is the sample's share of the estimate

    $w(t)(\alpha_t/\sigma_t)^2 \langle x_0 - \hat x_0^{ref}, \hat x_0^\psi - \hat x_0^{ref} \rangle$ per dimension,
    which is non-negative on average and zero where generator and reference agree; it tracks the divergence, and is no
    nats.

    Attributes:
        reference: the frozen diffusion model.
        assistant: score model of the generator's samples.
        guidance: $\alpha_{cfg}$, 1 for none.
        weighting: $w(t) (\alpha_t/\sigma_t)^2$.
        sampling: how times and noises are drawn.
    """

    reference: Reference
    assistant: ScoreModel
    guidance: float = 1.0
    weighting: Weighting = uniform
    sampling: Sampling = field(default_factory=UniformTimes)

    @classmethod
    def build(cls, context: TermContext) -> IntegralKL:
        """The term as the run's settings ask for it."""
        config = context.config
        weighting, sampling = find_weighting(config.weighting), UniformTimes(*config.time_range)
        return cls(context.reference, context.assistant, config.guidance, weighting, sampling)

    @torch.no_grad()
    def __call__(self, sample: Sample) -> TermResult:
        draw = self.sampling(sample.x0, sample.random)
        schedule = self.reference.denoiser.schedule
        x_t = add_noise(schedule, sample.x0, draw.noise, draw.t)
        x0_reference = guided_x0(self.reference, x_t, draw.t, sample.condition, self.guidance)
        x0_assistant = self.assistant.predict_x0(x_t, draw.t, sample.condition)
        alpha = expand_like(schedule.alpha(draw.t), x_t)
        sigma = expand_like(schedule.sigma(draw.t), x_t)
        difference = x0_assistant - x0_reference
        factor = self.weighting(WeightingInputs(alpha, sigma, sample.x0, x0_reference, x0_assistant))
        value = (factor * difference * (sample.x0 - x0_reference)).flatten(1).mean(1)
        return TermResult(value, factor * difference, {"score_gap": difference.square().mean().sqrt().item()})
