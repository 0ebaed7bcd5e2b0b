r"""Policy gradient over a Gaussian around x_0, with group-relative advantages (REINFORCE, GRPO).

The baseline that needs nothing but scores. Around each generated sample the policy is $N(x_0, s^2 I)$; of a group
of G draws $x_0 + s \eta_i$ with total scores $R_i$,

$$\nabla_{x_0} = -\frac{1}{G} \sum_i A_i\, \frac{\eta_i}{s}, \qquad
  A_i = \frac{G}{G - 1} \Big(R_i - \frac1G \sum_j R_j\Big),$$

REINFORCE (Williams 1992) with the mean of the other draws as its baseline, unbiased for the gradient of
$E_\eta R(x_0 + s \eta)$. With `normalise` the advantages are divided by the group's deviation, as GRPO does (Shao et
al. 2024, arXiv 2402.03300, section 4.1): every sample then pulls equally hard, whatever the reward's slope, and the
gradient is that of $\alpha_{rew}$ such units. A deviation at the level of the scores' rounding is 0: such a group says
nothing.

Alone it has no divergence, as `reward_only`. `--set term=integral_kl,policy_gradient` adds one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor

from ...distributed.shared_draws import normal
from ..advantages import least_deviation
from ..base import Sample, TermContext, TermResult
from ..gaussians import GaussianProblem, Verification
from .options import option, read_options
from .reward_sum import HoldsRewards, RewardSum


@runtime_checkable
class Exploration(Protocol):
    """Draws the group around each sample."""

    def __call__(self, x0: Tensor, random: torch.Generator) -> tuple[Tensor, float]:
        r"""$\eta$, `(group, *x0.shape)`, and what makes deviations from the group's mean unbiased: $G/(G-1)$ for
        independent draws."""


@dataclass(frozen=True)
class NormalExploration:
    """Independent standard normal draws.

    Attributes:
        group: how many.
    """

    group: int = 8

    def __call__(self, x0: Tensor, random: torch.Generator) -> tuple[Tensor, float]:
        noise = normal((self.group, *x0.shape), random, x0.dtype, rows=1)
        return noise, self.group / (self.group - 1)


@dataclass(frozen=True)
class SigmaPoints:
    r"""The points $\pm \sqrt{D}\, e_i$: mean 0, covariance I, no third moments. Exact for a quadratic reward."""

    def __call__(self, x0: Tensor, random: torch.Generator) -> tuple[Tensor, float]:
        size = x0[0].numel()
        axes = size**0.5 * torch.eye(size, dtype=x0.dtype, device=x0.device)
        points = torch.cat([axes, -axes]).reshape(2 * size, 1, *x0.shape[1:])
        return points.expand(-1, *x0.shape), 1.0


def _sigma_points(**world: Any) -> Exploration:
    return SigmaPoints()


@dataclass
class PolicyGradient(HoldsRewards):
    r"""Policy gradient term. Its value is minus the mean total score, and it reports each reward's mean over the group.

    Attributes:
        rewards: $R/\alpha_{rew} = \sum_i w_i r_i$.
        scale: $\alpha_{rew}$, which multiplies the gradient with `normalise` and without.
        group: G, draws around each sample.
        spread: s, in units of latents.
        normalise: whether advantages are divided by the group's deviation.
        exploration: how the group is drawn; `NormalExploration(group)` unless given.
    """

    uses_assistant: ClassVar[bool] = False
    takes_rewards: ClassVar[bool] = True
    asks_scores_alone: ClassVar[bool] = True
    verification: ClassVar[Verification] = Verification(
        cases=("quadratic",),
        variants=({"normalise": False, "group": 16},),
        patience=4,
        exact={"exploration": _sigma_points},
    )

    rewards: RewardSum = field(default_factory=RewardSum)
    scale: float = 1.0
    group: Annotated[int, Field(ge=2)] = option(8, "draws around each sample")
    spread: Annotated[float, Field(gt=0, allow_inf_nan=False)] = option(0.1, "deviation of the draws, in latents")
    normalise: bool = option(True, "divide advantages by the group's deviation")
    exploration: Callable[[Tensor, torch.Generator], tuple[Tensor, float]] | None = None

    @torch.no_grad()
    def __call__(self, sample: Sample) -> TermResult:
        explore = self.exploration or NormalExploration(self.group)
        noise, unbiased = explore(sample.x0, sample.random)
        drawn = (sample.x0 + self.spread * noise).flatten(0, 1)
        total, scores = self._scored(drawn, sample.condition.prompts, len(noise))
        totals = total.reshape(len(noise), -1)
        deviation = totals.std(0, correction=0)
        sizes = self.rewards.magnitude(scores) if scores else torch.zeros_like(total)
        heard = deviation > least_deviation(sizes.reshape(totals.shape).amax(0))
        advantages = torch.where(heard, unbiased * (totals - totals.mean(0)), 0.0)
        if self.normalise:
            advantages = torch.where(heard, advantages / deviation, 0.0)
        pull = advantages.reshape(*advantages.shape, *[1] * (sample.x0.ndim - 1)) * noise
        each = {name: values.reshape(len(noise), -1).mean(0) for name, values in scores.items()}
        details = {"group_deviation": self.scale * deviation.mean()}
        return TermResult(-self.scale * totals.mean(0), -(self.scale / self.spread) * pull.mean(0), details, each)

    def _scored(self, drawn: Tensor, prompts: tuple[str, ...], draws: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Total scores, and each reward's, of all draws of a batch, one draw of the whole batch after the other.

        Where a reward compares images of a prompt, each draw is a batch by itself: a sample's other draws are no images
        of its prompt that the generator would make.
        """
        if not self.rewards.compares_images:
            return self.rewards.score(drawn, prompts * draws)
        parts = [self.rewards.score(part, prompts) for part in drawn.chunk(draws)]
        scores = {name: torch.cat([own[name] for _, own in parts]) for name in parts[0][1]}
        return torch.cat([total for total, _ in parts]), scores

    def closed_form(self, problem: GaussianProblem) -> Tensor:
        r"""$-\alpha_{rew} E\, r(x_0)$: around a quadratic the spread moves the value and no gradient."""
        if problem.reward is None:
            return problem.law.mean.sum() * 0
        return -problem.reward_scale * problem.reward.mean(problem.law)


def build(context: TermContext) -> PolicyGradient:
    """The term as the run's settings ask for it."""
    options = read_options(PolicyGradient, context.name, context.options)
    return PolicyGradient(RewardSum.build(context, scale=1.0), context.config.alpha_rew, **options)
