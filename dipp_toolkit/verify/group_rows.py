r"""A reward of groups against its closed form: the spread of a prompt's images.

Of images $x_1 \dots x_K$ of a prompt, drawn from the generator's law $N(b, S)$, image i scores

$$r_i = \frac{K - 1}{K} \cdot \frac{1}{K - 1} \sum_{j \ne i} \tfrac12 |x_i - x_j|^2, \qquad
  E\, \tfrac12 |x - y|^2 = \mathrm{tr}\, S,$$

a score that no image has by itself. With the noises enumerated the images of the batch have the moments of the law to
the digit, and the mean over all pairs, those of an image with itself included, is $\mathrm{tr}\, S$ itself: hence the
factor. The optimum of the integral KL minus $\alpha_{rew}\, \mathrm{tr}\, S$ has the reference's mean, and a covariance
that is stationary where

$$\tfrac12 \int w \alpha_t^2 [C_t^{-1} - (\alpha_t^2 S + \sigma_t^2 I)^{-1}]\, dt = \alpha_{rew} I.$$
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..objective.gaussians import Gaussian
from ..rewards.groups import mean_over_others, same_prompt
from ..utils.images import Images
from .cases import Case

CASE = "groups"
"""What people type for these rows."""

SCALE = 0.1


@dataclass(frozen=True)
class SpreadReward:
    """Half the squared distance of an image from all of its prompt.

    Attributes:
        differentiable: always.
        samples_per_prompt: of a group, at least.
    """

    differentiable: bool = True
    samples_per_prompt: int = 2

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        same = same_prompt(CASE, prompts, images.device)
        squares = (images.flatten(1)[:, None] - images.flatten(1)[None]).square().sum(2)
        others = same.sum(1)
        return mean_over_others(squares / 2, same) * others / (others + 1)

    def mean(self, law: Gaussian) -> Float[Tensor, ""]:
        r"""$\mathrm{tr}\, S$."""
        return torch.trace(law.covariance)


def group_case() -> Case:
    """The integral KL and this reward."""
    return Case(CASE, "the spread of a prompt's images is rewarded: the covariance grows", 1.0, SpreadReward(), SCALE)
