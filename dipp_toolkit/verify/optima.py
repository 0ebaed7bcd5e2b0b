r"""Optima in closed form: a Gaussian reference, a linear or quadratic reward, an affine generator.

Minimise $-\alpha_{rew} E[r(x_0)] + \int w(t)\, KL(p_t \| q_t)\, dt$ over $p = N(b, S)$, with $q = N(\mu, \Sigma)$ and
$r(x) = a^T x - \frac12 (x - m)^T Q (x - m)$. Write $C_t = \alpha_t^2 \Sigma + \sigma_t^2 I$ and
$M = \int w \alpha_t^2 C_t^{-1} dt$. Setting the derivatives in b and in S to zero gives

$$(M + \alpha_{rew} Q)(b - \mu) = \alpha_{rew} (a - Q (\mu - m)), \qquad
  \alpha_{rew} Q + \int w \alpha_t^2 [C_t^{-1} - (\alpha_t^2 S + \sigma_t^2 I)^{-1}] dt = 0.$$

For a linear reward $Q = 0$: $b = \mu + \alpha_{rew} M^{-1} a$ and $S = \Sigma$. Here $w = 1$, and all integrals
are averages over one grid of times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import RunError
from ..roles import Images
from .gaussian import Gaussian


@dataclass(frozen=True)
class QuadraticReward:
    r"""$r(x) = a^T x - \frac12 (x - m)^T Q (x - m)$ of an image's three numbers; linear where Q is zero.

    Attributes:
        slope: a.
        curvature: Q, symmetric and positive semi-definite.
        centre: m.
        differentiable: always.
    """

    slope: Float[Tensor, " dimension"]
    curvature: Float[Tensor, "dimension dimension"]
    centre: Float[Tensor, " dimension"]
    differentiable: bool = True

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        x = images.flatten(1)
        offset = x - self.centre
        return x @ self.slope - (offset @ self.curvature * offset).sum(1) / 2


def information(
    law: Gaussian, alpha: Float[Tensor, " times"], sigma: Float[Tensor, " times"]
) -> Float[Tensor, "dimension dimension"]:
    r"""$\int \alpha_t^2 (\alpha_t^2 S + \sigma_t^2 I)^{-1} dt$, averaged over the grid; M for the reference's law."""
    return (alpha[:, None, None].square() * torch.linalg.inv(law.noised_covariance(alpha, sigma))).mean(0)


def optimal_mean(
    target: Gaussian, reward: QuadraticReward, scale: float, m: Float[Tensor, "d d"]
) -> Float[Tensor, " d"]:
    """b of the module's first equation.

    Args:
        target: the (guided) reference.
        reward: the reward.
        scale: alpha_rew.
        m: M of the target.
    """
    pull = scale * (reward.slope - reward.curvature @ (target.mean - reward.centre))
    return target.mean + torch.linalg.solve(m + scale * reward.curvature, pull)


def optimal_covariance(
    target: Gaussian,
    reward: QuadraticReward,
    scale: float,
    alpha: Float[Tensor, " times"],
    sigma: Float[Tensor, " times"],
) -> Float[Tensor, "d d"]:
    """S of the module's second equation, by Newton's method (scipy's `root`) on its upper triangle.

    Raises:
        RunError: no positive definite solution was found.
    """
    from scipy.optimize import root

    dimension = len(target.mean)
    upper = np.triu_indices(dimension)
    goal = information(target, alpha, sigma) + scale * reward.curvature

    def matrix(entries: np.ndarray) -> Tensor:
        full = np.zeros((dimension, dimension))
        full[upper] = entries
        return torch.from_numpy(full + np.triu(full, 1).T)

    def residual(entries: np.ndarray) -> np.ndarray:
        return (goal - information(Gaussian(target.mean, matrix(entries)), alpha, sigma)).numpy()[upper]

    solution = root(residual, target.covariance.numpy()[upper], tol=1e-12)
    covariance = matrix(solution.x)
    if not np.abs(solution.fun).max() < 1e-9 or torch.linalg.eigvalsh(covariance).min() <= 0:
        raise RunError(f"The fixed-point equation of the covariance has no solution here: {solution.message}")
    return covariance


def optimum(
    target: Gaussian,
    reward: QuadraticReward | None,
    scale: float,
    alpha: Float[Tensor, " times"],
    sigma: Float[Tensor, " times"],
) -> Gaussian:
    """The law that a generator of any mean and covariance should end at.

    Args:
        target: the reference, with guidance if there is any.
        reward: the reward, None for none.
        scale: alpha_rew.
        alpha: signal coefficients on the grid of times.
        sigma: noise coefficients on it.
    """
    if reward is None or scale == 0:
        return target
    mean = optimal_mean(target, reward, scale, information(target, alpha, sigma))
    return Gaussian(mean, optimal_covariance(target, reward, scale, alpha, sigma))
