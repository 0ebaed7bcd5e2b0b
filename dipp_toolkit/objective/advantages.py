r"""How much better an image is than the others of its prompt, in units of their spread (GRPO's advantages).

Of the images $x_1 \dots x_K$ of a prompt with total scores $R_i$,

$$A_i = \frac{R_i - m}{s}, \qquad m = \frac1K \sum_j R_j, \qquad s^2 = \frac1K \sum_j (R_j - m)^2$$

(Shao et al. 2024, arXiv 2402.03300, section 4.1). Their mean is 0 and their mean square 1, whatever the reward's units
are and however much prompts differ. An image that is the only one of its prompt has none, and neither has one whose
prompt's scores differ by their rounding alone: there A and s are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..utils.device import sent
from .gaussians import GaussianProblem, QuadraticReward

ROUNDING = 4.0
"""Units in the last place of a float32 score that a group's deviation has to be above, to be one."""

SAMPLES_PER_PROMPT = 4
"""Images of each prompt that the batches of a term of groups hold unless `noises_per_prompt` says otherwise."""


def least_deviation(magnitude: Tensor) -> Tensor:
    """The deviation that the rounding of float32 scores can make of nothing.

    Args:
        magnitude: largest size of the numbers that the group's totals are sums of.
    """
    return ROUNDING * torch.finfo(torch.float32).eps * magnitude


@dataclass(frozen=True)
class Advantages:
    """Where each image of a batch stands among those of its prompt.

    Attributes:
        values: $A_i$.
        deviation: s of each image's prompt; 0 where its group says nothing.
    """

    values: Float[Tensor, " batch"]
    deviation: Float[Tensor, " batch"]

    @classmethod
    def among(
        cls, totals: Float[Tensor, " batch"], magnitudes: Float[Tensor, " batch"], prompts: Sequence[str]
    ) -> Advantages:
        """Of a batch that holds whole groups, in any order.

        Args:
            totals: $R_i$.
            magnitudes: size of the numbers that each total is the sum of.
            prompts: one an image.
        """
        member = sent(membership(prompts), totals.device)
        count = member.sum(1, keepdim=True)
        mean = torch.where(member, totals, 0).sum(1, keepdim=True) / count
        offset = torch.where(member, totals - mean, 0)
        deviation = (offset.square().sum(1, keepdim=True) / count).sqrt()
        heard = deviation > least_deviation(torch.where(member, magnitudes, 0).amax(1, keepdim=True))
        values = torch.where(heard, offset / deviation, 0)
        # Each image is of one group: the others add nothing to its sum.
        return cls(values.sum(0), torch.where(member & heard, deviation, 0).sum(0))

    def over_deviation(self, values: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Values of each image over its group's deviation; 0 where the group says nothing."""
        deviation = self.deviation.reshape(-1, *[1] * (values.ndim - 1)).to(values.dtype)
        return torch.where(deviation > 0, values / deviation, 0.0)


def membership(prompts: Sequence[str]) -> Bool[Tensor, "groups batch"]:
    """Which images are of which prompt, the prompts in the order they come in."""
    number = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    own = torch.tensor([number[prompt] for prompt in prompts], dtype=torch.int64)
    return own[None] == torch.arange(len(number))[:, None]


def standardised_reward(problem: GaussianProblem) -> Float[Tensor, ""]:
    r"""$E\, r(x_0) / s$ of a large group on Gaussians: s is the deviation of $r$ over the law that the images are drawn
    from, which is held fixed; 0 without a reward."""
    if problem.reward is None:
        return problem.law.mean.sum() * 0
    assert isinstance(problem.reward, QuadraticReward)
    return problem.reward.mean(problem.law) / problem.reward.variance(problem.drawn).sqrt()
