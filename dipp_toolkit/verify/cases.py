"""What is verified: one fixed Gaussian world, and the cases with a known optimum in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion.predictions import Prediction
from ..diffusion.schedules import Schedule, VariancePreserving
from ..objective.base import Term, takes_rewards
from ..objective.gaussians import ClosedForm, Gaussian, GaussianProblem, QuadraticReward, average_kl
from .optima import Objective, optimum
from .quadrature import midpoints
from .world import AffineGenerator, AffineMap, GaussianReference

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
    reward: QuadraticReward | None = None
    reward_scale: float = 0.0
    weighting: str = "uniform"

    def problem(self, reference: GaussianReference, law: Gaussian, drawn: Gaussian) -> GaussianProblem:
        """The case on a law, the integral over t being the average over `grid()`."""
        times = grid()
        alpha, sigma = reference.schedule.alpha(times), reference.schedule.sigma(times)
        weights = WEIGHTS[self.weighting](alpha, sigma)
        target = reference.guided(self.guidance)
        return GaussianProblem(law, drawn, target, alpha, sigma, weights, self.reward, self.reward_scale)

    def objective(self, term: Term, reference: GaussianReference) -> Objective:
        r"""The closed form of a term on this case, $-\alpha_{rew} E\, r$ added unless it takes the reward."""
        explicit = None if takes_rewards(term) else self.reward

        def value(law: Gaussian, drawn: Gaussian) -> Tensor:
            problem = self.problem(reference, law, drawn)
            own = (
                term.closed_form(problem) if isinstance(term, ClosedForm) else average_kl(law, problem.target, problem)
            )
            return own if explicit is None else own - self.reward_scale * explicit.mean(law)

        return value

    def optimum(self, term: Term, reference: GaussianReference) -> Gaussian:
        """The law a generator should end at."""
        return optimum(self.objective(term, reference), reference.guided(self.guidance))


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
