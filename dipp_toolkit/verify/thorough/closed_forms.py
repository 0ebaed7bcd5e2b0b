r"""What the gradients should be, from the laws alone.

$x_0 = A z + b$, $S = A A^T$, and the integral over time is a sum over a process's `Grid`. Each objective is written
here again and differentiated by autograd in $(b, S)$: $\partial L/\partial A = 2 (\partial L/\partial S) A$.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...objective.gaussians import Gaussian, GaussianProblem, average_kl
from ..cases import WEIGHTS, Objective, gradient
from ..world import AffineGenerator
from .engines import Setting
from .processes import Grid


def _integral_kl(law: Gaussian, drawn: Gaussian, target: Gaussian, grid: Grid, weights: Tensor) -> Tensor:
    problem = GaussianProblem(law, drawn, target, grid.alpha, grid.sigma, weights * len(weights))
    return average_kl(law, target, problem)


def _squared_scores(law: Gaussian, drawn: Gaussian, target: Gaussian, grid: Grid, weights: Tensor) -> Tensor:
    r"""$\frac12 E |s_p - s_q|^2$ over $x_t$ of `drawn`: of an affine function, its mean's square and its spread."""
    own, other, spread = (
        each.noised_covariance(grid.alpha, grid.sigma) for each in (law, target, drawn)
    )  # fmt: skip
    own, other = torch.linalg.inv(own), torch.linalg.inv(other)
    alpha = grid.alpha[:, None, None]
    centre = (alpha * (other @ (drawn.mean - target.mean)[:, None] - own @ (drawn.mean - law.mean)[:, None])).squeeze(2)
    slope = other - own
    square = centre.square().sum(1) + torch.einsum("tij,tjk,tik->t", slope, spread, slope)
    return (weights * square).sum() / 2


def objective_of(setting: Setting) -> Objective:
    r"""The objective of a setting, $-\alpha_{rew} E\, r$ included; not of the weighting `dmd`, which has none."""
    grid, target, reward = setting.process.grid(setting.times), setting.target, setting.reward
    weights = grid.mass * WEIGHTS[setting.weighting](grid.alpha, grid.sigma)

    def value(law: Gaussian, drawn: Gaussian) -> Tensor:
        goal = target
        if setting.term == "diffused_reward" and reward is not None:
            goal = Gaussian(target.mean + setting.reward_scale * target.covariance @ reward.slope, target.covariance)
        form = _squared_scores if setting.term == "score_divergence" else _integral_kl
        divergence = form(law, drawn, goal, grid, weights)
        if reward is None or setting.term == "diffused_reward":
            return divergence
        return divergence - setting.reward_scale * reward.mean(law)

    return value


def expected_gradient(setting: Setting, generator: AffineGenerator) -> Tensor:
    """The gradient in `(b, A)` at a generator, `(1 + d, d)`."""
    by_mean, by_covariance = gradient(objective_of(setting), generator.law)
    return torch.cat([by_mean[None], 2 * by_covariance @ generator.network.matrix.detach()])
