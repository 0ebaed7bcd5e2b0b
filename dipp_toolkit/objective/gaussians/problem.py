"""An objective on Gaussian laws: what a term is asked for its closed form with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import kl_divergence

from .law import Gaussian
from .reward import QuadraticReward

NODES = 16
"""Gauss-Hermite nodes a dimension: exact up to degree 31, and more digits than wanted for what is no polynomial."""


@dataclass(frozen=True)
class GaussianProblem:
    r"""A generator's law, where it should go, and what weighs how much.

    Attributes:
        law: the generator's, $N(b, S)$; closed forms are differentiated with respect to it.
        drawn: the same law, held fixed, for objectives whose $x_t$ are drawn from a law that is not differentiated.
        target: the reference's law, guidance included.
        alpha: signal coefficients on a grid of times.
        sigma: noise coefficients on it.
        weights: $w(t)$ on it; integrals over t are averages over the grid.
        reward: for terms that take the reward into their own formula; None where there is none.
        reward_scale: its $\alpha_{rew}$.
    """

    law: Gaussian
    drawn: Gaussian
    target: Gaussian
    alpha: Float[Tensor, " times"]
    sigma: Float[Tensor, " times"]
    weights: Float[Tensor, " times"]
    reward: QuadraticReward | None = None
    reward_scale: float = 0.0

    def average(self, values: Float[Tensor, " times"]) -> Float[Tensor, ""]:
        r"""$\int w(t)\, \mathrm{values}(t)\, dt$."""
        return (self.weights * values).mean()

    def noised_mean(self, law: Gaussian) -> Float[Tensor, "times dimension"]:
        r"""$\alpha_t b$."""
        return self.alpha[:, None] * law.mean

    def points(self, law: Gaussian, nodes: int = NODES) -> tuple[Tensor, Tensor]:
        """Nodes and weights of the expectation over $x_t$ of a law, by Gauss-Hermite quadrature.

        Returns:
            Points, `(nodes ** dimension, times, dimension)`, differentiable in the law, and weights that sum to 1.
        """
        units, weights = normal_nodes(len(law.mean), nodes, law.mean.dtype)
        factor = torch.linalg.cholesky(law.noised_covariance(self.alpha, self.sigma))
        return self.noised_mean(law) + torch.einsum("tij,nj->nti", factor, units), weights

    def score(self, law: Gaussian, x_t: Tensor) -> Tensor:
        r"""$\nabla \log p_t(x_t) = -C_t^{-1} (x_t - \alpha_t b)$, `(points, times, dimension)`."""
        precision = torch.linalg.inv(law.noised_covariance(self.alpha, self.sigma))
        return -torch.einsum("tij,ntj->nti", precision, x_t - self.noised_mean(law))


def normal_nodes(dimension: int, nodes: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    r"""Gauss-Hermite nodes of the standard normal law, exact for polynomials of degree `2 nodes - 1` a dimension.

    Returns:
        Points, `(nodes ** dimension, dimension)`, and weights that sum to 1.
    """
    line, mass = np.polynomial.hermite_e.hermegauss(nodes)
    lines = torch.cartesian_prod(*[torch.from_numpy(line).to(dtype)] * dimension).reshape(-1, dimension)
    masses = torch.cartesian_prod(*[torch.from_numpy(mass / mass.sum()).to(dtype)] * dimension)
    return lines, masses.reshape(-1, dimension).prod(1)


def average_kl(law: Gaussian, target: Gaussian, problem: GaussianProblem) -> Float[Tensor, ""]:
    r"""$\int w(t)\, KL(N_t(law) \| N_t(target))\, dt$."""
    alpha, sigma = problem.alpha, problem.sigma
    return problem.average(kl_divergence(law.noised(alpha, sigma), target.noised(alpha, sigma)))
