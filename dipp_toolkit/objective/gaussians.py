r"""A world without chance: Gaussian laws, linear and quadratic rewards, and objectives in closed form on them.

For $x_0 \sim N(m, S)$ and $x_t = \alpha x_0 + \sigma \epsilon$ the forward process gives

$$x_t \sim N(\alpha m, C), \quad C = \alpha^2 S + \sigma^2 I, \qquad
  E[x_0 | x_t] = m + \alpha S C^{-1} (x_t - \alpha m).$$

A term that implements `ClosedForm` is held by `dipp verify` against its objective on a `GaussianProblem`; its class
attribute `verification` says how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from ..utils.images import Images

NODES = 16
"""Gauss-Hermite nodes a dimension: exact up to degree 31, and more digits than needed for what is not a polynomial."""


@dataclass(frozen=True)
class Gaussian:
    """The normal law $N(m, S)$.

    Attributes:
        mean: m.
        covariance: S, symmetric and positive semi-definite.
    """

    mean: Float[Tensor, " dimension"]
    covariance: Float[Tensor, "dimension dimension"]

    def noised_covariance(
        self, alpha: Float[Tensor, "*times"], sigma: Float[Tensor, "*times"]
    ) -> Float[Tensor, "*times d d"]:
        r"""$C = \alpha^2 S + \sigma^2 I$ for each time; positive definite wherever sigma is not zero."""
        identity = torch.eye(len(self.mean), dtype=self.mean.dtype, device=self.mean.device)
        return alpha[..., None, None].square() * self.covariance + sigma[..., None, None].square() * identity

    def noised(self, alpha: Float[Tensor, "*times"], sigma: Float[Tensor, "*times"]) -> MultivariateNormal:
        """The law of $x_t$, one for each time, differentiable in the mean and the covariance."""
        return MultivariateNormal(alpha[..., None] * self.mean, self.noised_covariance(alpha, sigma))

    def denoise(
        self, x_t: Float[Tensor, "batch dimension"], alpha: Float[Tensor, " batch"], sigma: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch dimension"]:
        r"""$E[x_0 | x_t] = m + \alpha S C^{-1} (x_t - \alpha m)$."""
        residual = x_t - alpha[:, None] * self.mean
        solved = torch.linalg.solve(self.noised_covariance(alpha, sigma), residual)
        return self.mean + alpha[:, None] * solved @ self.covariance


@dataclass(frozen=True)
class QuadraticReward:
    r"""$r(x) = a^T x - \frac12 (x - m)^T Q (x - m)$ of an image's numbers; linear where Q is zero.

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
        x = images.flatten(1).to(self.slope.dtype)
        offset = x - self.centre
        return x @ self.slope - (offset @ self.curvature * offset).sum(1) / 2

    def mean(self, law: Gaussian) -> Float[Tensor, ""]:
        r"""$E\, r(x) = a^T b - \frac12 (b - m)^T Q (b - m) - \frac12 \mathrm{tr}(Q S)$ for $x \sim N(b, S)$."""
        offset = law.mean - self.centre
        spread = (self.curvature * law.covariance).sum()
        return law.mean @ self.slope - (offset @ self.curvature @ offset + spread) / 2

    def variance(self, law: Gaussian) -> Float[Tensor, ""]:
        r"""$g^T S g + \frac12 \mathrm{tr}(Q S Q S)$ with the gradient at the mean $g = a - Q (b - m)$."""
        gradient = self.slope - self.curvature @ (law.mean - self.centre)
        curved = self.curvature @ law.covariance
        return gradient @ law.covariance @ gradient + (curved * curved.mT).sum() / 2


@runtime_checkable
class KnownReward(Protocol):
    """A reward whose mean over a normal law is known."""

    @property
    def differentiable(self) -> bool | None:
        """As for every reward."""

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]: ...

    def mean(self, law: Gaussian) -> Float[Tensor, ""]:
        r"""$E\, r(x)$ for $x$ of the law, differentiable in it."""


@runtime_checkable
class KnownReference(Protocol):
    """A reference whose law is known."""

    def guided(self, guidance: float) -> Gaussian:
        """The law under guidance."""


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
        reward: for terms that take the reward into their own formula; None without one.
        reward_scale: its $\alpha_{rew}$.
        guidance: that of the target, for terms that know another law to be guided.
        places: of the grid's times in their range, in (0, 1), for terms that weigh times by themselves.
        step: number of the generator update, from 0, for terms that change over a run.
    """

    law: Gaussian
    drawn: Gaussian
    target: Gaussian
    alpha: Float[Tensor, " times"]
    sigma: Float[Tensor, " times"]
    weights: Float[Tensor, " times"]
    reward: KnownReward | None = None
    reward_scale: float = 0.0
    guidance: float = 1.0
    places: Float[Tensor, " times"] | None = None
    step: int = 0

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


@dataclass(frozen=True)
class Verification:
    """What a term says of its own verification, as the class attribute `verification`.

    Attributes:
        cases: the cases whose optimum it reaches; all of them where empty.
        variants: options to verify with, one training each; the defaults alone unless given.
        settings: options for every variant that say how it learns and not what.
        nodes: nodes a dimension that enumerate noises: 2 where the gradient on a sample is affine in the noises.
        patience: times as many updates as usual, for an objective that is flat around its optimum, or one whose optima
            lie far from where a training starts.
        exact: fields of the term to replace where the assistant is exact, each made from the world.
        beside_integral_kl: whether it is verified beside the integral KL, for a term without a brake of its own.
        steps: updates whose gradient is compared with that of the closed form, for a term that changes over a run.
    """

    cases: tuple[str, ...] = ()
    variants: tuple[Mapping[str, Any], ...] = field(default_factory=lambda: ({},))
    settings: Mapping[str, Any] = field(default_factory=dict)
    nodes: int = 2
    patience: int = 1
    exact: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    beside_integral_kl: bool = False
    steps: tuple[int, ...] = (0,)


def verification_of(term: Any) -> Verification:
    """A term's own settings of its verification, or its class's; the defaults where it has none."""
    said = getattr(term, "verification", None)
    # A class may say it of its instances alone, as a property.
    return said if isinstance(said, Verification) else Verification()


@runtime_checkable
class ClosedForm(Protocol):
    """A term that knows its objective on Gaussians. One that does not is held against the integral KL's."""

    def closed_form(self, problem: GaussianProblem) -> Float[Tensor, ""]:
        """The objective, differentiable in `problem.law`; rewards count only where the term takes them itself."""


@runtime_checkable
class MapClosedForm(Protocol):
    """A term whose objective is about which sample a noise becomes, and not about the samples' law alone, or whose
    gradients are those of no function of the law: then of one that holds fixed what is not differentiated."""

    def closed_form_of_map(
        self, problem: GaussianProblem, matrix: Float[Tensor, "d d"], bias: Float[Tensor, " d"]
    ) -> Float[Tensor, ""]:
        """The objective of the generator $A z + b$, differentiable in both.

        Args:
            problem: what it should become; its `law` is $N(b, A A^T)$.
            matrix: A.
            bias: b.
        """
