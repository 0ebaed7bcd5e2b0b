"""What is verified: one fixed Gaussian world, and the cases with a known optimum in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.predictions import Prediction
from ..diffusion.schedules import Schedule, VariancePreserving
from ..errors import RunError
from ..objective.base import Term, takes_rewards
from ..objective.gaussians import (
    ClosedForm,
    Gaussian,
    GaussianProblem,
    KnownReward,
    MapClosedForm,
    QuadraticReward,
    average_kl,
    verification_of,
)
from .quadrature import midpoints
from .world import AffineGenerator, AffineMap, GaussianReference

Objective = Callable[[Gaussian, Gaussian], Tensor]
"""`objective(law, drawn)`: a scalar, differentiated in `law`; `drawn` is the same law, held fixed."""

MapObjective = Callable[[Tensor, Tensor], Tensor]
"""`objective(matrix, bias)`: a scalar, differentiated in the A and the b of a generator $A z + b$."""


def gradient(objective: Objective, law: Gaussian) -> tuple[Tensor, Tensor]:
    r"""$\partial L/\partial b$ and the symmetric $\partial L/\partial S$ at a law."""
    mean = law.mean.detach().clone().requires_grad_(True)
    covariance = law.covariance.detach().clone().requires_grad_(True)
    value = objective(Gaussian(mean, covariance), Gaussian(law.mean.detach(), law.covariance.detach()))
    by_mean, by_covariance = torch.autograd.grad(value, (mean, covariance), allow_unused=True)
    by_mean = torch.zeros_like(mean) if by_mean is None else by_mean
    by_covariance = torch.zeros_like(covariance) if by_covariance is None else by_covariance
    return by_mean, (by_covariance + by_covariance.mT) / 2


def optimum(objective: Objective, start: Gaussian) -> Gaussian:
    r"""The law at which the objective is stationary, by Newton's method on its closed form.

    The unknowns are the mean b and a symmetric A with the covariance $S = A A$, so that a law that shrinks to a point
    is an optimum like any other. Tests check it against the formulas that can be written down: with
    $C_t = \alpha_t^2 \Sigma + \sigma_t^2 I$ and $M = \int w \alpha_t^2 C_t^{-1} dt$,

    - integral KL, linear reward: $b = \mu + \alpha_{rew} M^{-1} a$, $S = \Sigma$;
    - integral KL, quadratic reward: $(M + \alpha_{rew} Q)(b - \mu) = \alpha_{rew} (a - Q (\mu - m))$ and
      $\alpha_{rew} Q + \int w \alpha_t^2 [C_t^{-1} - (\alpha_t^2 S + \sigma_t^2 I)^{-1}] dt = 0$;
    - guidance: $b = \mu_0 + \alpha_{cfg} (\mu_c - \mu_0)$;
    - diffused reward, linear: $b = \mu + \alpha_{rew} \Sigma a$ whatever w is.

    Args:
        objective: its closed form.
        start: where the search begins; the reference's law is near enough.

    Raises:
        RunError: nothing stationary was found, or what was found has directions without spread beside others with.
    """
    dimension = len(start.mean)
    upper = np.triu_indices(dimension)

    def unpack(entries: np.ndarray) -> tuple[Tensor, Tensor]:
        full = np.zeros((dimension, dimension))
        full[upper] = entries[dimension:]
        symmetric = full + np.triu(full, 1).T
        return torch.from_numpy(entries[:dimension].copy()), torch.from_numpy(symmetric)

    def residual(entries: np.ndarray) -> np.ndarray:
        mean, factor = unpack(entries)
        by_mean, by_covariance = gradient(objective, Gaussian(mean, factor @ factor))
        by_factor = by_covariance @ factor + factor @ by_covariance
        return np.concatenate([by_mean.numpy(), by_factor.numpy()[upper]])

    values, vectors = torch.linalg.eigh(start.covariance)
    factor = vectors @ values.sqrt().diag() @ vectors.mT
    first = np.concatenate([start.mean.numpy(), factor.numpy()[upper]])
    mean, factor = unpack(_stationary(residual, first))
    return Gaussian(mean, factor @ factor)


def map_gradient(objective: MapObjective, matrix: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    r"""$\partial L/\partial b$ and $\partial L/\partial A$ at a generator."""
    matrix, bias = matrix.detach().clone().requires_grad_(True), bias.detach().clone().requires_grad_(True)
    by_matrix, by_bias = torch.autograd.grad(objective(matrix, bias), (matrix, bias))
    return by_bias, by_matrix


def map_optimum(objective: MapObjective, start: Gaussian) -> Gaussian:
    """The law of the generator at which an objective of maps is stationary, by Newton's method.

    Args:
        objective: its closed form.
        start: where the search begins; the reference's law is near enough.

    Raises:
        RunError: nothing stationary was found.
    """
    dimension = len(start.mean)

    def residual(entries: np.ndarray) -> np.ndarray:
        numbers = torch.from_numpy(entries.reshape(1 + dimension, dimension).copy())
        return torch.cat([part.flatten() for part in map_gradient(objective, numbers[1:], numbers[0])]).numpy()

    first = torch.cat([start.mean, torch.linalg.cholesky(start.covariance).flatten()]).numpy()
    found = torch.from_numpy(_stationary(residual, first).reshape(1 + dimension, dimension))
    return Gaussian(found[0], found[1:] @ found[1:].mT)


def _stationary(residual: Callable[[np.ndarray], np.ndarray], first: np.ndarray) -> np.ndarray:
    """Where a gradient vanishes.

    Raises:
        RunError: nowhere near.
    """
    from scipy.optimize import root

    solution = root(residual, first, tol=1e-12)
    if not np.abs(solution.fun).max() < 1e-8:
        raise RunError(f"The objective's closed form has no stationary law near the reference's: {solution.message}")
    return cast(np.ndarray, solution.x)


TRAINING_TIMES = 12
"""Times of the verification's schedule. A network with weights of its own for each must see each often."""

TIME_RANGE = (0.5 / (TRAINING_TIMES - 1), 1 - 0.5 / (TRAINING_TIMES - 1))
"""The whole cells of all training times but the first and the last: drawing uniformly in it, each is equally likely."""


def _vector(*values: float) -> Float[Tensor, " dimension"]:
    return torch.tensor(values, dtype=torch.float64)


def grid() -> Float[Tensor, " times"]:
    """The times all integrals run over: the training times inside `TIME_RANGE`."""
    return midpoints(*TIME_RANGE, TRAINING_TIMES - 2)


def short_schedule() -> VariancePreserving:
    r"""A variance preserving schedule of few training times, $\log \alpha^2/\sigma^2$ falling evenly from 3 to -3."""
    return VariancePreserving(torch.linspace(3, -3, TRAINING_TIMES, dtype=torch.float64).sigmoid())


def make_reference(schedule: Schedule | None = None, prediction: Prediction = "v_prediction") -> GaussianReference:
    """The world's reference: correlated, and moved by a prompt.

    Args:
        schedule: the forward process, `short_schedule` where none is given.
        prediction: what its network predicts.
    """
    covariance = torch.stack([_vector(1.0, 0.4, 0.1), _vector(0.4, 0.8, -0.3), _vector(0.1, -0.3, 0.6)])
    times = torch.linspace(0, 1, TRAINING_TIMES, dtype=torch.float64) if schedule is None else grid()
    empty, given = Gaussian(_vector(-0.3, 0.5, 0.2), covariance), Gaussian(_vector(0.6, -0.4, 0.5), covariance)
    return GaussianReference(empty, given, schedule or short_schedule(), times, prediction)


def make_generator() -> AffineGenerator:
    """A generator that is wrong in everything: centred on 0, uncorrelated, too narrow."""
    return AffineGenerator(AffineMap(0.6 * torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)))


WEIGHTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "uniform": lambda alpha, sigma: torch.ones_like(alpha),
    "snr": lambda alpha, sigma: (sigma / alpha).square(),
}
"""w(t) of alpha and sigma by the weighting's name, written here again so that a mistake in the weightings is seen."""


@dataclass(frozen=True)
class Case:
    """An objective with a known optimum.

    Attributes:
        name: what people type.
        summary: the optimum in words.
        guidance: alpha_cfg, 1 for none.
        reward: the reward, None for none.
        reward_scale: alpha_rew.
        weighting: the time weighting.
    """

    name: str
    summary: str
    guidance: float = 1.0
    reward: KnownReward | None = None
    reward_scale: float = 0.0
    weighting: str = "uniform"

    def problem(self, reference: GaussianReference, law: Gaussian, drawn: Gaussian, step: int = 0) -> GaussianProblem:
        """The case on a law at an update, the integral over t being the average over `grid()`."""
        times = grid()
        alpha, sigma = reference.schedule.alpha(times), reference.schedule.sigma(times)
        weights = WEIGHTS[self.weighting](alpha, sigma)
        target = reference.guided(self.guidance)
        return GaussianProblem(
            law, drawn, target, alpha, sigma, weights, self.reward, self.reward_scale, self.guidance,
            (times - TIME_RANGE[0]) / (TIME_RANGE[1] - TIME_RANGE[0]), step,
        )  # fmt: skip

    def objective(self, term: Term, reference: GaussianReference, step: int = 0) -> Objective:
        r"""The closed form of a term on this case, $-\alpha_{rew} E\, r$ added unless it takes the reward, and the
        integral KL where it is verified beside that.

        Args:
            term: under test.
            reference: the world's.
            step: number of the generator update.
        """
        explicit = None if takes_rewards(term) else self.reward
        beside = isinstance(term, ClosedForm) and verification_of(term).beside_integral_kl

        def value(law: Gaussian, drawn: Gaussian) -> Tensor:
            problem = self.problem(reference, law, drawn, step)
            own = (
                term.closed_form(problem) if isinstance(term, ClosedForm) else average_kl(law, problem.target, problem)
            )
            if beside:
                own = own + average_kl(law, problem.target, problem)
            return own if explicit is None else own - self.reward_scale * explicit.mean(law)

        return value

    def objective_of_map(self, term: Term, reference: GaussianReference, step: int = 0) -> MapObjective:
        r"""The same of a term that is about maps."""
        assert isinstance(term, MapClosedForm)
        closed_form, explicit = term.closed_form_of_map, None if takes_rewards(term) else self.reward

        def value(matrix: Tensor, bias: Tensor) -> Tensor:
            law = Gaussian(bias, matrix @ matrix.mT)
            own = closed_form(self.problem(reference, law, law, step), matrix, bias)
            return own if explicit is None else own - self.reward_scale * explicit.mean(law)

        return value

    def optimum(self, term: Term, reference: GaussianReference, step: int = 0) -> Gaussian:
        """The law a generator should end at, `step` being the last update."""
        if isinstance(term, MapClosedForm):
            return map_optimum(self.objective_of_map(term, reference, step), reference.guided(self.guidance))
        return optimum(self.objective(term, reference, step), reference.guided(self.guidance))


_SLOPE = _vector(1.0, -0.6, 0.8)
_CURVATURE = torch.stack([_vector(0.8, 0.3, -0.2), _vector(0.3, 0.5, 0.1), _vector(-0.2, 0.1, 0.6)])

_LINEAR = QuadraticReward(_SLOPE, torch.zeros(3, 3, dtype=torch.float64), _vector(0, 0, 0))
_SCALE = 0.3

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case("distillation", "no reward: the generator becomes the reference"),
        Case("linear", "linear reward: the mean moves", reward=_LINEAR, reward_scale=_SCALE),
        Case(
            "slight", "a third of that reward: bounded divergences cannot hold more", reward=_LINEAR, reward_scale=0.1
        ),
        Case(
            "snr",
            "linear reward, all times weighing the same in x_0: the mean moves, not necessarily as far",
            reward=_LINEAR,
            reward_scale=_SCALE,
            weighting="snr",
        ),
        Case(
            "quadratic",
            "quadratic reward: mean and covariance balance the reward's curvature against the reference's",
            reward=QuadraticReward(_SLOPE, _CURVATURE, _vector(-0.5, 1.0, 1.5)),
            reward_scale=0.5,
        ),
        Case("guidance", "guidance alone: the mean is mu_0 + alpha_cfg (mu_c - mu_0)", guidance=2.5),
    )
}
