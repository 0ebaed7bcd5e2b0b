r"""Reward learned from preferences between groups of images of a prompt, where there is no gradient (TDM-R1).

TDM-R1 (Luo et al. 2026, "TDM-R1: Reinforcing few-step diffusion models with non-differentiable reward", arXiv
2603.07700) takes two things apart: a surrogate reward learns from scores, and the few-step generator learns from the
surrogate, held by a distribution matching. The surrogate $\hat r_\phi$ learns as in DGPO (Luo et al. 2025, arXiv
2510.08425): of the images of a prompt those with an advantage $A_i > 0$ are the better group, each counting
$|A_i|$, and the likelihood that the better group wins is raised,

$$\min_\phi E_c \Big[ -\log \sigma\Big(\frac{\beta}{K} \sum_i A_i\, \hat r_\phi(x_i, c)\Big)
    + \frac{\mu}{2 K} \sum_i \big(\hat r_\phi(x_i, c) - \bar r_\phi(c)\big)^2 \Big],$$

$\bar r_\phi$ being the mean over the prompt's images, so that what they all share cancels. The group's likelihood, the
weights and the $1/K$ are those of DGPO's text and of TDM-R1's code. Two things are ours: TDM-R1's surrogate is a
second diffusion model, whose reward is what it gains in denoising over the reference, and this one is a small network
on latents (`dipp_toolkit.objective.estimators.surrogate`); and TDM-R1 holds its surrogate near the reference by
clipping and a small penalty, where here the second summand does.

**Fixed point of the surrogate.** Of any function on the images, whatever the law they are drawn from, the minimum is
$\hat r_\phi - \bar r_\phi = v A$ with $\mu v = \beta\, \sigma(-\beta v)$: A's mean square is 1, so that the likelihood
depends on v alone along A and on nothing across it. $\mu = \beta\, \sigma(-\beta)$ makes v = 1: the surrogate learns
the advantage itself, and $\beta$ says how soon a preference that is known already stops to teach.

**Fixed point of the generator.** The term lends $-\alpha_{rew} \nabla \hat r_\phi$, so beside a divergence it is that
of `last_step_reward`: with a linear reward on Gaussian laws $b = \mu + \frac{\alpha_{rew}}{\sqrt{a^T \Sigma a}} M^{-1}
a$, $S = \Sigma$. Scores alone are asked for, one a sample. Each of several steps has preferences of its own, its images
compared with each other: `--set term=integral_kl,group_preference --set supervise=every`. Alone it has no brake.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ..advantages import SAMPLES_PER_PROMPT, Advantages, standardised_reward
from ..base import Committing, Sample, TermContext, TermResult
from ..estimators.base import Estimate, GradientEstimator, Score
from ..estimators.memory import Groups, Rows
from ..estimators.surrogate import Lesson, Surrogate, predict
from ..gaussians import GaussianProblem, Verification
from .options import option, options_of, read_options
from .reward_sum import HoldsRewards, RewardSum


def hold(beta: float) -> float:
    r"""$\mu = \beta\, \sigma(-\beta)$, with which the surrogate's fixed point is the advantage."""
    return beta / (1 + math.exp(beta))


def group_loss(
    predicted: Float[Tensor, " samples"],
    advantages: Float[Tensor, " samples"],
    same: Bool[Tensor, "samples samples"],
    beta: float,
) -> Float[Tensor, ""]:
    r"""$-\log \sigma(\beta\, \mathrm{cov}(A, \hat r)) + \frac{\mu}{2} \mathrm{var}(\hat r)$ of groups, the mean over
    their samples.

    The covariance over a whole group is $\frac1K \sum_i A_i \hat r_i$, as A's mean is 0; over a part of one it stays
    free of what the group shares.

    Args:
        predicted: $\hat r_\phi$ of each sample.
        advantages: $A_i$.
        same: whether two samples are of one prompt; each is of its own.
        beta: $\beta$, above 0.
    """
    member = same.to(predicted.dtype)
    count = member.sum(1)
    offset = predicted - member @ predicted / count
    margin, spread = member @ (offset * advantages) / count, member @ offset.square() / count
    return (F.softplus(-beta * margin) + hold(beta) / 2 * spread).mean()


@dataclass
class PreferenceSurrogate(Surrogate):
    r"""A surrogate that learns which images of a prompt are the better ones, instead of their scores.

    Attributes:
        beta: $\beta$ of the groups' likelihood.
        images: of a round.
    """

    beta: float = 1.0
    images: int = 64

    def lesson(self, rows: Rows) -> Lesson:
        """The loss of groups that are drawn from a memory; what is lent is in deviations of a prompt's scores."""
        groups = Groups.among(rows)
        self.deviation = rows["x0"].new_ones(())

        def loss(network: nn.Module, random: torch.Generator) -> Tensor:
            chosen = groups.draw(self.images, random)
            own = groups.number[chosen]
            same = own[:, None] == own[None]
            return group_loss(predict(network, rows, chosen), groups.advantages[chosen], same, self.beta)

        return loss


@dataclass(frozen=True)
class KnownAdvantage:
    """The surrogate at its fixed point, for verification: the gradient of the advantage, by central differences of the
    scores, which are exact for linear and quadratic ones."""

    def estimate(self, sample: Sample, score: Score) -> Estimate:
        """As `GradientEstimator` says."""
        prompts, flat = sample.condition.prompts, sample.x0.flatten(1)
        scores = score(sample.x0, prompts)
        slopes = []
        for axis in torch.eye(flat.shape[1], dtype=flat.dtype):
            above, below = (score((flat + way * axis).reshape(sample.x0.shape), prompts) for way in (1, -1))
            slopes.append((above - below) / 2)
        gradient = torch.stack(slopes, 1).reshape(sample.x0.shape)
        return Estimate(scores, Advantages.among(scores, scores.abs(), prompts).over_deviation(gradient))

    def warnings(self) -> list[str]:
        """None."""
        return []

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is nothing to take over."""


def _known_advantage(**world: Any) -> GradientEstimator:
    return KnownAdvantage()


@dataclass
class GroupPreference(HoldsRewards):
    r"""Group preference term. Its value is minus the mean total score.

    Attributes:
        rewards: $R/\alpha_{rew} = \sum_i w_i r_i$, whose scores alone are asked for.
        scale: $\alpha_{rew}$, in deviations of a prompt's scores.
        surrogate: learns from the preferences; `build` makes one as the options say.
        beta: $\beta$: above it a margin between the groups hardly teaches any more.
        rounds: updates of the surrogate for each of the generator.
        images: of each of them, all images of a prompt together.
        trust: rank correlation with unseen differences of scores within a prompt from which the surrogate's gradient is
            used.
        samples_per_prompt: images of each prompt that batches hold unless `noises_per_prompt` says otherwise.
        keeps_latents: the surrogate learns on those of updates before, too.
    """

    keeps_latents: ClassVar[bool] = True
    uses_assistant: ClassVar[bool] = False
    takes_rewards: ClassVar[bool] = True
    asks_scores_alone: ClassVar[bool] = True
    samples_per_prompt: ClassVar[int] = SAMPLES_PER_PROMPT
    verification: ClassVar[Verification] = Verification(
        cases=("linear", "slight", "snr"),
        settings={"images": 512},
        exact={"surrogate": _known_advantage},
        beside_integral_kl=True,
    )

    rewards: RewardSum = field(default_factory=RewardSum)
    scale: float = 1.0
    surrogate: GradientEstimator = field(kw_only=True)
    beta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = option(
        1.0, "margin between the groups, in deviations, above which a preference teaches little more"
    )
    rounds: Annotated[int, Field(ge=1)] = option(8, "updates of the surrogate a step")
    images: Annotated[int, Field(ge=2)] = option(64, "images of each of them, whole groups while there is room")
    trust: Annotated[float, Field(ge=-1, le=1)] = option(
        0.4, "rank correlation with unseen differences of scores within a prompt that trust requires"
    )

    def __call__(self, sample: Sample) -> TermResult:
        each: dict[str, Tensor] = {}

        def score(latents: Tensor, prompts: Sequence[str]) -> Tensor:
            total, scores = self.rewards.score(latents, prompts)
            each.update({name: own for name, own in scores.items() if name not in each})
            return total

        estimate = self.surrogate.estimate(sample, score)
        return TermResult(-self.scale * estimate.scores, -self.scale * estimate.gradient, estimate.details, each)

    def commit(self) -> None:
        """The surrogate learns from the update's samples."""
        if isinstance(self.surrogate, Committing):
            self.surrogate.commit()

    def discard(self) -> None:
        """It forgets them."""
        if isinstance(self.surrogate, Committing):
            self.surrogate.discard()

    def state_dict(self) -> dict[str, Any]:
        """What the surrogate has learned."""
        return {"surrogate": self.surrogate.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give it back."""
        self.surrogate.load_state_dict(state.get("surrogate", {}))

    def warnings(self) -> list[str]:
        """Why the rewards can have had little effect."""
        return [f"The rewards moved little: {why}" for why in self.surrogate.warnings()]

    def closed_form(self, problem: GaussianProblem) -> Tensor:
        r"""$-\alpha_{rew} E\, r(x_0)/s$, the surrogate at its fixed point."""
        return -problem.reward_scale * standardised_reward(problem)


def build(context: TermContext) -> GroupPreference:
    """The term as the run's settings ask for it."""
    options = read_options(GroupPreference, context.name, context.options)
    chosen = {name: getattr(GroupPreference, name) for name in options_of(GroupPreference)} | options
    surrogate = PreferenceSurrogate(
        chosen["trust"],
        chosen["rounds"],
        context.config.seed,
        context.device,
        processes=context.processes,
        beta=chosen["beta"],
        images=chosen["images"],
    )
    return GroupPreference(
        RewardSum.build(context, scale=1.0), context.config.alpha_rew, surrogate=surrogate, **options
    )
