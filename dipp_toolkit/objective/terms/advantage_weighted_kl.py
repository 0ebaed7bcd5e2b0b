r"""Integral KL whose gradient counts more on images that are better than others of their prompt (DMD with advantages).

The gradient of the distribution matching on a sample is multiplied by its advantage among the images of its prompt,

$$\nabla_{x_0} = (1 + \kappa A(x_0))\; E_{t, \epsilon}\big[w(t) (\alpha_t/\sigma_t)^2
    (\hat x_0^\psi - \hat x_0^{ref})\big],$$

A being the group-normalised score (`dipp_toolkit.objective.advantages`), held fixed and clipped to $\pm$`clip`. Scores
are all that it needs of a reward. Weighting a matching loss by advantages is what AWM does to the loss of a
multi-step model (Xue et al. 2025, arXiv 2509.25050, abstract); FewStepRL (arXiv 2611.08240) has a form for DMD, and
Reward Forcing weighs DMD's gradient by $e^{r/\beta}$. Their formulas have not been compared with this one: the weight
$1 + \kappa A$ is ours.

**What it converges to is the reference, not the reward.** Where generator and reference have one law the two
predictions are equal at every $x_t$, so the gradient is 0 on every sample, whatever it is multiplied by. On Gaussian
laws with a linear reward $a^T x$ the samples are $x_0 = b + A z$, their advantage $a^T (x_0 - b)/\tau$ with
$\tau^2 = a^T S a$, and with $M = \int w \alpha_t^2 C_t^{-1} dt$ of the reference, K the same less that of the
generator, the mean field is

$$\partial_b = M (b - \mu) + \frac{\kappa}{\tau} K S a, \qquad
  \partial_A = K A + \frac{\kappa}{\tau}\, M (b - \mu)\, a^T A .$$

Both vanish only where $K (I - \kappa^2 S a a^T/\tau^2) = 0$, and that matrix is regular unless $\kappa = 1$: the
reference's law, $b = \mu$ and $S = \Sigma$, is the one stationary law. Along the reward's direction the two equations
are coupled by $\kappa$ both ways, with the determinant $1 - \kappa^2$: from $\kappa = 1$ on the reference is a saddle
that training leaves, so $\kappa$ stays below 1. What advantages change is the way there, which matters where a
generator does not arrive: towards the parts of the reference that the reward likes first. For a generator that ends
elsewhere than at the reference, add the reward as a term that pulls: `last_step_reward`, `group_preference`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ...diffusion.schedules import expand_like
from ..advantages import SAMPLES_PER_PROMPT
from ..base import Sample, Side, TermContext, TermResult
from ..gaussians import GaussianProblem, QuadraticReward, Verification
from .integral_kl import IntegralKL
from .options import option
from .reward_sum import HoldsRewards, RewardSum


@dataclass
class AdvantageWeightedKL(HoldsRewards, IntegralKL):
    r"""Integral KL term whose gradients are weighed by advantages. Its value is the integral KL's, weighed likewise.

    The units of the rewards do not matter, so `reward_scale` changes nothing here; $\kappa$ does.

    Attributes:
        strength: $\kappa$.
        clip: of advantages, either way.
        rewards: $R = \sum_i w_i r_i$, whose scores alone are asked for.
        samples_per_prompt: images of each prompt that batches hold unless `noises_per_prompt` says otherwise.
    """

    takes_rewards: ClassVar[bool] = True
    asks_scores_alone: ClassVar[bool] = True
    side: ClassVar[Side] = "divergences"
    samples_per_prompt: ClassVar[int] = SAMPLES_PER_PROMPT
    verification: ClassVar[Verification] = Verification(
        cases=("distillation", "linear", "snr"), variants=({}, {"strength": 0.8})
    )

    strength: Annotated[float, Field(ge=0, lt=1)] = option(
        0.5, "how much advantages change the weight of a sample, 0 or more and below 1"
    )
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] = option(5.0, "largest advantage, either way")
    rewards: RewardSum = field(default_factory=RewardSum)

    @torch.no_grad()
    def __call__(self, sample: Sample) -> TermResult:
        prompts = sample.condition.prompts
        total, scores = self.rewards.score(sample.x0, prompts)
        advantages = self.rewards.advantages(total, scores, prompts)
        weight = 1 + self.strength * advantages.values.clamp(-self.clip, self.clip)
        result = super().__call__(sample)
        details = {**result.details, "group_deviation": advantages.deviation.mean()}
        value, grad = weight * result.value, expand_like(weight, result.grad) * result.grad
        return replace(result, value=value, grad=grad, details=details, scores=scores)

    def closed_form_of_map(self, problem: GaussianProblem, matrix: Tensor, bias: Tensor) -> Tensor:
        r"""$\langle \partial_b, b \rangle + \langle \partial_A, A \rangle$ with both fields held fixed: they are no
        gradient of a function, so this is one whose gradient they are. Of a linear reward; advantages are not clipped.
        """
        by_bias, by_matrix = self.mean_field(problem, matrix.detach(), bias.detach())
        return by_bias @ bias + (by_matrix * matrix).sum()

    def mean_field(self, problem: GaussianProblem, matrix: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        r"""$\partial_b$ and $\partial_A$, as the formulas above have them."""
        target, covariance = problem.target, matrix @ matrix.mT
        reference = self._precision(problem, target.covariance)
        narrower = reference - self._precision(problem, covariance)
        by_bias, by_matrix = reference @ (bias - target.mean), narrower @ matrix
        if problem.reward is None:
            return by_bias, by_matrix
        assert isinstance(problem.reward, QuadraticReward) and not problem.reward.curvature.any()
        slope = problem.reward.slope / (problem.reward.slope @ covariance @ problem.reward.slope).sqrt()
        return (
            by_bias + self.strength * narrower @ covariance @ slope,
            by_matrix + self.strength * torch.outer(by_bias, slope @ matrix),
        )

    @staticmethod
    def _precision(problem: GaussianProblem, covariance: Tensor) -> Tensor:
        r"""$\int w \alpha_t^2 (\alpha_t^2 S + \sigma_t^2 I)^{-1} dt$."""
        alpha, sigma = problem.alpha[:, None, None], problem.sigma[:, None, None]
        noised = alpha.square() * covariance + sigma.square() * torch.eye(len(covariance), dtype=covariance.dtype)
        return (problem.weights[:, None, None] * alpha.square() * torch.linalg.inv(noised)).mean(0)


def build(context: TermContext) -> AdvantageWeightedKL:
    """The term as the run's settings ask for it."""
    return AdvantageWeightedKL.build(context, rewards=RewardSum.build(context, scale=1.0))
