r"""Integral KL to the reference tilted by the diffused reward (DIDR), by a short denoise from x_t.

The target of alignment on clean images is $p^* \propto q\, e^{r/\beta}$. Its noised law has the score
$s_{ref}(x_t) + \nabla_{x_t} \log E[e^{r(x_0)/\beta} | x_t]$, so an integral KL towards that score has the optimum
$p^*$ whatever $w(t)$ is (DIDR, arXiv 2605.24001; the plain reward's optimum under an integral KL depends on w). With
$\hat x_0 = (x_t + \sigma_t^2 s)/\alpha_t$ the gradient with respect to a sample is

$$\nabla_{x_0} = E_{t, \epsilon}\Big[w(t) (\alpha_t/\sigma_t)^2 \big(\hat x_0^\psi - \hat x_0^{ref}
    - \tfrac{\sigma_t^2}{\alpha_t} \nabla_{x_t} \log E[e^{r(x_0)/\beta} | x_t]\big)\Big].$$

The expectation is estimated by a short, differentiable denoise from $x_t$: `steps` network passes, ancestral steps in
between (the first pass is the reference's own prediction), and a mean over `proxies` of them. One pass is exact for a
linear reward on a Gaussian, where $\log E[e^{r/\beta}|x_t] = a^T \hat x_0^{ref}/\beta + \mathrm{const}$; otherwise it
takes the reward of the denoised mean for the mean over what it could become.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ...diffusion.schedules import expand_like, usable_times
from ...diffusion.times import TimeLaw
from ...distributed.shared_draws import normal
from ...utils.precision import full_precision
from ..base import Sample, TermContext, TermResult
from ..gaussians import Gaussian, GaussianProblem, QuadraticReward, Verification, average_kl
from .divergence import Divergence, Noised, guided_x0, noised
from .options import option
from .reward_sum import HoldsRewards, RewardSum


@dataclass
class DiffusedReward(HoldsRewards, Divergence):
    r"""Diffused reward term. `reward_scale` is $1/\beta$.

    Its value is the integral KL's, towards the tilted target. The rewards' scores it reports are those of the
    denoised samples, not of the generator's own.

    Attributes:
        steps: network passes of the short denoise, 1 to 4.
        proxies: denoised samples the expectation is a mean over; more than one where there is more than one step.
        rewards: $r/\beta$.
    """

    takes_rewards: ClassVar[bool] = True
    verification: ClassVar[Verification] = Verification(
        cases=("distillation", "linear", "snr", "guidance"), variants=({"steps": 1}, {"steps": 3, "proxies": 2})
    )

    steps: Annotated[int, Field(ge=1, le=4)] = option(1, "network passes of the short denoise, 1 to 4")
    proxies: Annotated[int, Field(ge=1)] = option(1, "short denoises the expectation is a mean over")
    rewards: RewardSum = field(default_factory=RewardSum)

    def __call__(self, sample: Sample) -> TermResult:
        noisy = noised(self.schedule, sample, self.sampling)
        with torch.enable_grad():
            x_t = noisy.x_t.detach().requires_grad_(True)
            first = guided_x0(self.reference, x_t, noisy.t, noisy.condition, self.guidance_at(noisy.step))
        x0_reference, x0_assistant = first.detach(), self._assistant_x0(noisy)
        slope, scores = self._diffused_slope(noisy, x_t, first, sample)
        difference = x0_assistant - x0_reference - noisy.sigma.square() / noisy.alpha * slope
        factor = self.factor(noisy, x0_reference, x0_assistant)
        value = (factor * difference * (sample.x0 - x0_reference)).flatten(1).mean(1)
        gap = (x0_assistant - x0_reference).square().mean().sqrt()
        details = {"score_gap": gap, **self.kl(noisy, x0_reference, x0_assistant)}
        return TermResult(value, factor * difference, details, scores)

    @torch.no_grad()
    def _assistant_x0(self, noisy: Noised) -> Tensor:
        return self.assistant_x0(noisy)

    def _diffused_slope(
        self, noisy: Noised, x_t: Tensor, first: Tensor, sample: Sample
    ) -> tuple[Tensor, dict[str, Tensor]]:
        r"""$\nabla_{x_t} \log \frac{1}{n} \sum_j e^{R(\hat x_0^{(j)})}$, and each reward's mean score."""
        if not self.rewards.terms:
            return torch.zeros_like(x_t), {}
        count = self.proxies if self.steps > 1 else 1  # one pass is deterministic
        totals, slopes, scores_by_proxy = [], [], []
        for index in range(count):
            with torch.enable_grad():
                proxy = self._denoise(noisy, x_t, first, sample.random)
            seen = Sample(proxy.detach(), sample.condition, sample.noise, sample.random, sample.step, sample.readout)
            total, gradient, scores = self.rewards.differentiate(seen)
            last = index == count - 1
            with full_precision(x_t.device):
                (slope,) = torch.autograd.grad(proxy, x_t, gradient.to(proxy.dtype), retain_graph=not last)
            totals.append(total)
            slopes.append(slope)
            scores_by_proxy.append(scores)
        shares = torch.stack(totals).softmax(0)  # the gradient of a logarithm of a mean of exponentials
        slope = sum(
            (expand_like(share, x_t) * gradient for share, gradient in zip(shares, slopes, strict=True)),
            x_t.new_zeros(()),
        )
        return slope, {
            name: torch.stack([scores_of_proxy[name] for scores_of_proxy in scores_by_proxy]).mean(0)
            for name in scores_by_proxy[0]
        }

    def _denoise(self, noisy: Noised, x_t: Tensor, first: Tensor, random: torch.Generator) -> Tensor:
        """The rest of a short denoise, differentiable in `x_t`: at even times below t, each an ancestral step."""
        x0, x, t = first, x_t, noisy.t
        for index in range(1, self.steps):
            lower = (noisy.t * (self.steps - index) / self.steps).clamp_min(self._least_time()).minimum(t)
            x = self._ancestral(x, x0, t, lower, random)
            x0, t = guided_x0(self.reference, x, lower, noisy.condition, self.guidance_at(noisy.step)), lower
        return x0

    def _least_time(self) -> float:
        """No earlier than the times the divergence looks at: nearer to 0 the reference tells nothing new."""
        earliest = usable_times(self.schedule)[0]
        return max(self.sampling.low, earliest) if isinstance(self.sampling, TimeLaw) else earliest

    def _ancestral(self, x: Tensor, x0: Tensor, t: Tensor, lower: Tensor, random: torch.Generator) -> Tensor:
        r"""A draw from $q(x_s | x_t, x_0)$, $s < t$ (Ho et al. 2020, eq. 6, for any alpha and sigma)."""
        schedule = self.schedule
        alpha_t, sigma_t = expand_like(schedule.alpha(t), x), expand_like(schedule.sigma(t), x)
        alpha_s, sigma_s = expand_like(schedule.alpha(lower), x), expand_like(schedule.sigma(lower), x)
        step = alpha_t / alpha_s
        added = (sigma_t.square() - step.square() * sigma_s.square()).clamp_min(0)
        mean = (step * sigma_s.square() * x + alpha_s * added * x0) / sigma_t.square()
        noise = normal(x.shape, random, x.dtype)
        return mean + (added.sqrt() * sigma_s / sigma_t) * noise

    def warnings(self) -> list[str]:
        """Warnings of the rewards about how they were trained."""
        return self.rewards.warnings()

    def closed_form(self, problem: GaussianProblem) -> Tensor:
        r"""The integral KL to $q\, e^{a^T x/\beta} \propto N(\mu + \Sigma a/\beta, \Sigma)$."""
        target = problem.target
        if problem.reward is not None:
            assert isinstance(problem.reward, QuadraticReward)
            moved = target.mean + problem.reward_scale * target.covariance @ problem.reward.slope
            target = Gaussian(moved, target.covariance)
        return average_kl(problem.law, target, problem)


def build(context: TermContext) -> DiffusedReward:
    """The term as the run's settings ask for it."""
    return DiffusedReward.build(context, rewards=RewardSum.build(context, schedule=context.config.scale_by_step))
