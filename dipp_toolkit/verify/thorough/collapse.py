r"""Where a curved reward collapses a direction, because the divergence's pull outwards is bounded.

Along an axis of the reference with variance s, let the reward's curvature be q and the generator's variance S. Under a
weighting w the integral KL's gradient in S is zero with the reward's where

$$\alpha_{rew}\, q
  = \int w\, \alpha_t^2 \Big[\frac{1}{\alpha_t^2 S + \sigma_t^2} - \frac{1}{\alpha_t^2 s + \sigma_t^2}\Big] dt .$$

The right side falls in S, from its value at S = 0, the most that the divergence can hold:

$$\alpha_{rew}\, q \le \int w\, \frac{\alpha_t^2}{\sigma_t^2}\, \frac{\alpha_t^2 s}{\alpha_t^2 s + \sigma_t^2}\, dt .$$

With `snr` the factor $w \alpha_t^2/\sigma_t^2$ is 1 and the limit is below 1, however wide the direction is: a reward
that curves more than that leaves no variance at all. With `uniform` it is $\alpha_t^2/\sigma_t^2$, without bound as the
times go to 0, where a narrow law's KL is infinite; a `time_range` that stops short of 0 makes it finite and large.
`dmd` multiplies by $n/|d|_1$, which is finite as well while other directions have any spread: with
$k = \alpha_t s/(\alpha_t^2 s + \sigma_t^2)$ and d taken where the direction has none left,

$$\alpha_{rew}\, q \le \int E\Big[\frac{n}{|d|_1}\, \alpha_t k + (1 - \alpha_t k)\, \frac{n |d_i|}{|d|_1^2}\Big] dt .$$

A linear reward does not curve, so it moves the mean and collapses nothing.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...objective.gaussians import QuadraticReward
from ..cases import WEIGHTS
from ..rows import VerifyRow
from ..training import BETAS, rate_at
from .closed_forms import objective_of
from .dmd_form import dmd_gradient
from .engines import Setting, crossed_engine
from .processes import PROCESSES
from .world import PROMPT, SIZE, make_generator

CASE = "six-collapse"

AXIS = 1
"""Of the upright world: the direction that curves, of variance 1.5."""

SHARES = (0.7, 1.5)
"""Curvatures, in multiples of the most that the divergence can hold: a direction kept, and one lost."""

UPDATES = 250
TIMES = 100
RATES = (0.1, 1e-3)
"""Adam's at the first and at the last update."""

TOLERANCE = 5e-3


def most_curvature(setting: Setting, variance: float) -> float:
    r"""The largest $\alpha_{rew}\, q$ along a direction with an optimum that has spread, `dmd` apart.

    Args:
        setting: gives process, times and weighting.
        variance: the reference's along it.
    """
    grid = setting.process.grid(setting.times)
    alpha, sigma = grid.alpha.square(), grid.sigma.square()
    weights = grid.mass * WEIGHTS[setting.weighting](grid.alpha, grid.sigma)
    return float((weights * alpha / sigma * alpha * variance / (alpha * variance + sigma)).sum())


def most_curvature_of_dmd(setting: Setting, axis: int, left: float = 1e-4) -> float:
    """The same under `dmd`, in the upright world, where all else is as in the reference: the pull outwards, for each
    unit of deviation, where next to none is left.

    Args:
        setting: gives process and times.
        axis: the direction.
        left: of the reference's deviation.
    """
    target = setting.target
    deviations = target.covariance.diagonal().sqrt()
    deviations = torch.where(torch.arange(len(deviations)) == axis, left * deviations, deviations)
    found = dmd_gradient(deviations, target.mean, target, setting.process.grid(setting.times, 200))
    return float(-found.matrix[axis, axis] / deviations[axis])


def curved_along(axis: int, curvature: float, mean: Tensor) -> QuadraticReward:
    """A reward that curves along one axis and is highest at a mean."""
    unit = torch.eye(SIZE, dtype=torch.float64)[axis]
    return QuadraticReward(torch.zeros_like(unit), curvature * torch.outer(unit, unit), mean)


def variance_left(setting: Setting, variance: float) -> float:
    """The variance at which the two pulls are equal; 0 where they never are."""
    from scipy.optimize import brentq

    reward = setting.reward
    assert reward is not None
    if setting.reward_scale * float(reward.curvature[AXIS, AXIS]) >= most_curvature(setting, variance):
        return 0.0
    target, objective = setting.target, objective_of(setting)

    def pull(value: float) -> float:
        covariance = target.covariance.clone()
        covariance[AXIS, AXIS] = value
        law = replace(target, covariance=covariance.requires_grad_(True))
        (slope,) = torch.autograd.grad(objective(law, target), law.covariance)
        return float(slope[AXIS, AXIS])

    return float(brentq(pull, 1e-6, variance, xtol=1e-10))


def collapse_row(share: float, seed: int = 0) -> VerifyRow:
    """The covariance after a training against a reward of some share of the most curvature under `snr`.

    Args:
        share: of that curvature.
        seed: of the times.
    """
    plain = Setting(PROCESSES["flow"], "snr", reward_scale=1.0, upright=True)
    variance = float(plain.target.covariance[AXIS, AXIS])
    curvature = share * most_curvature(plain, variance)
    setting = replace(plain, reward=curved_along(AXIS, curvature, plain.target.mean))
    expected = setting.target.covariance.clone()
    expected[AXIS, AXIS] = variance_left(setting, variance)
    generator = make_generator()
    optimizer = torch.optim.Adam(generator.network.parameters(), betas=BETAS)
    engine = crossed_engine(setting, generator, optimizer, seed, TIMES)
    assert engine.enumeration is not None
    condition = setting.reference.encode([PROMPT] * engine.enumeration.rows)
    for step in range(UPDATES):
        optimizer.param_groups[0]["lr"] = rate_at(RATES, step, UPDATES)
        engine.update_generator(condition, step)
    label = f"{setting.label} curved by {share:g} of the most"
    return VerifyRow.compare(
        CASE, label, "exact", "variance along the curve", expected[AXIS, AXIS].reshape(1),
        generator.law.covariance[AXIS, AXIS].reshape(1), TOLERANCE, variance,
    )  # fmt: skip


def collapse_rows(seed: int = 0) -> list[VerifyRow]:
    """A direction that is kept, and one that is lost."""
    return [collapse_row(share, seed) for share in SHARES]
