r"""Reward through the last step alone, in units of its spread within a prompt (RTDMD, FewStepRL).

A generator of K steps noises between them, so that a reward's gradient through all of them passes K networks and K - 1
draws. Through the last step alone, whose input $x_{t_K}$ is held fixed, it passes one: the step is deterministic, and
RTDMD (Huang et al. 2026, "Reinforcing few-step generators via reward-tilted distribution matching", arXiv 2605.26108)
brings the reward back through it beside a distribution matching of every step. There the reward's size is a number of
the settings, and the other steps have a policy gradient; FewStepRL (arXiv 2611.08240) has a few-step ReFL. Here it is
the advantage that is raised, the reward in units of its deviation s among the images of a prompt, which is held fixed:

$$L = -\alpha_{rew}\, E_c\, E\Big[\frac{R(x_0^K, c)}{s(c)}\Big], \qquad
  \nabla_{x_0^K} = -\frac{\alpha_{rew}}{s(c)}\, \nabla R(x_0^K, c), \qquad \nabla_{x_0^k} = 0 \text{ for } k < K .$$

Every prompt then pulls by how its own images differ, whatever the reward's units are, and one that makes no
difference between them pulls nothing. That unit is ours, and as in GRPO it stands for the advantage (Shao et al. 2024).

**Fixed point.** Beside the integral KL on Gaussian laws and with a linear reward $a^T x$, the covariance stays
$\Sigma$ and $s^2 = a^T \Sigma a$, so that

$$b = \mu + \frac{\alpha_{rew}}{\sqrt{a^T \Sigma a}}\, M^{-1} a, \qquad M = \int w\, \alpha_t^2\, C_t^{-1} dt :$$

as far as DI++ with a reward scale of $\alpha_{rew}/\sqrt{a^T \Sigma a}$. Alone it has no brake, and as a law narrows
its s falls: add a divergence, `--set term=integral_kl,last_step_reward`. Several steps need `supervise=every`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ...config import TrainConfig
from ...errors import RequestError
from ..advantages import SAMPLES_PER_PROMPT, standardised_reward
from ..base import Sample, TermContext, TermResult
from ..gaussians import GaussianProblem, Verification
from .reward_sum import HoldsRewards, RewardSum


@dataclass
class LastStepReward(HoldsRewards):
    r"""Group-standardised reward term. Its value is minus the mean total score of the last step's samples.

    Attributes:
        rewards: $R/\alpha_{rew} = \sum_i w_i r_i$, differentiated.
        scale: $\alpha_{rew}$, in deviations of a prompt's scores.
        steps: K. The gradients of all steps are averaged, so the last one's is multiplied by K.
        samples_per_prompt: images of each prompt that batches hold unless `noises_per_prompt` says otherwise.
    """

    uses_assistant: ClassVar[bool] = False
    takes_rewards: ClassVar[bool] = True
    samples_per_prompt: ClassVar[int] = SAMPLES_PER_PROMPT
    verification: ClassVar[Verification] = Verification(cases=("linear", "slight", "snr"), beside_integral_kl=True)

    rewards: RewardSum = field(default_factory=RewardSum)
    scale: float = 1.0
    steps: int = 1

    @classmethod
    def check_settings(cls, name: str, config: TrainConfig) -> None:
        """Refuse several steps that are trained through each other, besides what all terms of rewards refuse.

        Raises:
            RequestError: they are.
        """
        super().check_settings(name, config)
        if config.generator_steps > 1 and config.supervise != "every":
            raise RequestError(
                f"The term '{name}' goes back through the last step alone, and with supervise={config.supervise} the "
                f"gradient goes through all {config.generator_steps} of them. Set supervise=every, or train with the "
                "rewards as terms of their own: leave the term out."
            )

    def __call__(self, sample: Sample) -> TermResult:
        if sample.readout + 1 < self.steps:
            nothing = sample.x0.new_zeros(len(sample.x0))
            return TermResult(nothing, torch.zeros_like(sample.x0), counted=nothing)
        prompts = sample.condition.prompts
        total, gradient, scores = self.rewards.differentiate(sample)
        advantages = self.rewards.advantages(total, scores, prompts)
        details = {"group_deviation": self.scale * advantages.deviation.mean()}
        pull = -self.scale * self.steps * advantages.over_deviation(gradient)
        return TermResult(-self.scale * total, pull, details, scores)

    def warnings(self) -> list[str]:
        """Warnings of the rewards about how they were trained."""
        return self.rewards.warnings()

    def closed_form(self, problem: GaussianProblem) -> Tensor:
        r"""$-\alpha_{rew} E\, r(x_0)/s$."""
        return -problem.reward_scale * standardised_reward(problem)


def build(context: TermContext) -> LastStepReward:
    """The term as the run's settings ask for it.

    Raises:
        RequestError: an option was set, it takes none; or several steps are trained through each other.
    """
    config = context.config
    LastStepReward.check_settings(context.name, config)
    return LastStepReward(RewardSum.build(context, scale=1.0), config.alpha_rew, config.generator_steps)
