r"""The weighting `dmd` in closed form, where the laws' axes are along the numbers.

`dmd` multiplies $D = \hat x_0^\psi - \hat x_0^{ref}$ by $n / |d|_1$, $d = x_0 - \hat x_0^{ref}(x_t)$ of n numbers: it
depends on the sample, so there is no $w(t)$ whose integral KL it descends. What holds all the same:

- Where p is q, D is zero for every sample, so that law is stationary for any law of times.
- Where only the mean is wrong, $D = \sigma_t^2 C_t^{-1} (b - \mu)$ for every sample, so that at one time the mean is
  pulled exactly along $C_t^{-1} (b - \mu)$, as by the integral KL with $w(t) = (\sigma_t/\alpha_t)^2\, E[n/|d|_1]$;
  over all times by a positive definite matrix: no other mean is stationary.
- Where only the covariance is wrong, D is odd and the factor even in the noises: the mean is not pulled at all.
- With a reward the mean moves, d is no longer centred, and the factor then goes with z: the covariance moves too, even
  where the reward is linear, unlike under any $w(t)$.

For laws with diagonal covariances and a diagonal A the numbers are independent, each with its $(z, \epsilon)$, and

$$\frac{1}{|d|_1} = \int_0^\infty e^{-u |d|_1} du = \int_0^\infty \prod_i e^{-u |d_i|}\, du$$

makes every expectation a product of expectations of one number. With d, D and z jointly normal these need
$M_k(u) = E[e^{-u|d|} d^k]$, k = 0, 1, 2, of a normal d, which are values of erfcx. What is left is one integral over u.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import erfcx
from torch import Tensor

from ...objective.gaussians import Gaussian, QuadraticReward
from .processes import Grid

NODES = 240
"""Of the integral over log u, by the trapezoidal rule: smooth and vanishing at both ends."""

REACH = (1e-5, 3e3)
"""From where to where u runs, in the inverses of the largest and the smallest deviation of d."""

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class DmdGradient:
    """The divergence's gradient under `dmd`.

    Attributes:
        bias: in b, `(n,)`.
        matrix: in A, `(n, n)`.
    """

    bias: Tensor
    matrix: Tensor


def _one_sided(mean: Array, deviation: Array, u: Array) -> tuple[Array, Array, Array]:
    r"""$E[e^{-u d} d^k; d > 0]$ of a normal d, k = 0, 1, 2."""
    moved = mean - u * deviation**2
    height = np.exp(-(mean**2) / (2 * deviation**2))
    none = height * erfcx(-moved / (deviation * np.sqrt(2))) / 2
    edge = deviation * height / np.sqrt(2 * np.pi)
    return none, moved * none + edge, (moved**2 + deviation**2) * none + moved * edge


def _moments(mean: Array, deviation: Array, u: Array) -> tuple[Array, Array, Array]:
    """$M_0$, $M_1$ and $M_2$."""
    above, below = _one_sided(mean, deviation, u), _one_sided(-mean, deviation, u)
    return above[0] + below[0], above[1] - below[1], above[2] + below[2]


def dmd_gradient(deviations: Tensor, bias: Tensor, target: Gaussian, grid: Grid) -> DmdGradient:
    r"""The divergence's gradient at a generator $b + \mathrm{diag}(a) z$.

    Args:
        deviations: a, `(n,)`.
        bias: b.
        target: the reference's law; its covariance is diagonal.
        grid: the integral over time.
    """
    own, b, mu, variance = (value.numpy() for value in (deviations, bias, target.mean, target.covariance.diagonal()))
    alpha, sigma, mass = (value.numpy()[:, None] for value in (grid.alpha, grid.sigma, grid.mass))
    size = len(own)
    kept = alpha * variance / (alpha**2 * variance + sigma**2)
    gain = alpha * own**2 / (alpha**2 * own**2 + sigma**2) - kept
    centre = (1 - alpha * kept) * (b - mu)  # the mean of d, and of D
    by_z, by_noise = (1 - alpha * kept) * own, -kept * sigma
    spread = by_z**2 + by_noise**2
    gap_z, gap_noise = gain * alpha * own, gain * sigma
    gap_slope = (by_z * gap_z + by_noise * gap_noise) / spread  # of D in d
    z_slope = by_z / spread
    left = gap_z - gap_slope * by_z  # the covariance of D and z that d does not explain
    deviation = np.sqrt(spread)
    exponents = np.linspace(np.log(REACH[0] / deviation.max()), np.log(REACH[1] / deviation.min()), NODES)
    push, matrix = np.zeros(size), np.zeros((size, size))
    for u in np.exp(exponents):
        none, one, two = _moments(centre, deviation, np.full_like(centre, u))
        first = one - centre * none  # E[e^(-u|d|) (d - m)]
        second = two - 2 * centre * one + centre**2 * none
        gap = centre * none + gap_slope * first
        z = z_slope * first
        both = centre * z + gap_slope * z_slope * second + left * none
        share = size * u * (exponents[1] - exponents[0]) * mass * none.prod(1, keepdims=True)
        push += (share * gap / none).sum(0)
        mixed = np.einsum("ti,tj->ij", share * gap / none, z / none)
        matrix += mixed - np.diag(np.diag(mixed)) + np.diag((share * both / none).sum(0))
    return DmdGradient(torch.from_numpy(push), torch.from_numpy(matrix))


def reward_gradient(reward: QuadraticReward, scale: float, deviations: Tensor, bias: Tensor) -> DmdGradient:
    r"""The gradient of $-\alpha_{rew} E\, r$ at the same generator."""
    slope = reward.slope - reward.curvature @ (bias - reward.centre)
    return DmdGradient(-scale * slope, scale * reward.curvature * deviations)


def dmd_optimum(target: Gaussian, grid: Grid, reward: QuadraticReward | None, scale: float) -> Gaussian:
    """The law at which the gradient is zero, of diagonal covariance.

    With a reward that pulls along one axis and curves along the axes there is such a law: a mixed derivative needs two
    axes along which the mean is wrong.

    Args:
        target: the reference's law, of diagonal covariance.
        grid: the integral over time.
        reward: None for none; then the target itself comes out, which is not assumed.
        scale: alpha_rew.

    Raises:
        ValueError: nothing stationary was found.
    """
    from scipy.optimize import root

    start = target.covariance.diagonal().sqrt()
    size = len(start)

    def residual(entries: Array) -> Array:
        deviations, bias = start * torch.from_numpy(entries[size:].copy()), torch.from_numpy(entries[:size].copy())
        found = dmd_gradient(deviations, bias, target, grid)
        by_bias, by_deviations = found.bias, found.matrix.diagonal()
        if reward is not None:
            explicit = reward_gradient(reward, scale, deviations, bias)
            by_bias, by_deviations = by_bias + explicit.bias, by_deviations + explicit.matrix.diagonal()
        return np.concatenate([by_bias.numpy(), by_deviations.numpy()])

    begin = np.concatenate([target.mean.numpy() + 0.05, np.full(size, 0.9)])
    solution = root(residual, begin, tol=1e-10)
    if not np.abs(solution.fun).max() < 1e-7:
        raise ValueError(f"Nothing stationary was found: {solution.message}")
    deviations = start * torch.from_numpy(solution.x[size:])
    return Gaussian(torch.from_numpy(solution.x[:size]), deviations.square().diag())
