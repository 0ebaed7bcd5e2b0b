r"""Where an objective on Gaussian laws is stationary, by Newton's method on its closed form.

The unknowns are the mean b and a symmetric A with the covariance $S = A A$, so that a law that shrinks to a point is
an optimum like any other. What is found is checked in the tests against the formulas that can be written down: with
$C_t = \alpha_t^2 \Sigma + \sigma_t^2 I$ and $M = \int w \alpha_t^2 C_t^{-1} dt$,

- integral KL, linear reward: $b = \mu + \alpha_{rew} M^{-1} a$, $S = \Sigma$;
- integral KL, quadratic reward: $(M + \alpha_{rew} Q)(b - \mu) = \alpha_{rew} (a - Q (\mu - m))$ and
  $\alpha_{rew} Q + \int w \alpha_t^2 [C_t^{-1} - (\alpha_t^2 S + \sigma_t^2 I)^{-1}] dt = 0$;
- guidance: $b = \mu_0 + \alpha_{cfg} (\mu_c - \mu_0)$;
- diffused reward, linear: $b = \mu + \alpha_{rew} \Sigma a$ whatever w is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..errors import RunError
from ..objective.gaussians import Gaussian

Objective = Callable[[Gaussian, Gaussian], Tensor]
"""`objective(law, drawn)`: a scalar, differentiated in `law`; `drawn` is the same law, held fixed."""


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
    """The law at which the objective is stationary.

    Args:
        objective: its closed form.
        start: where the search begins; the reference's law is near enough.

    Raises:
        RunError: nothing stationary was found, or what was found has directions without spread beside others with.
    """
    from scipy.optimize import root

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
    solution = root(residual, np.concatenate([start.mean.numpy(), factor.numpy()[upper]]), tol=1e-12)
    if not np.abs(solution.fun).max() < 1e-8:
        raise RunError(f"The objective's closed form has no stationary law near the reference's: {solution.message}")
    mean, factor = unpack(solution.x)
    return Gaussian(mean, factor @ factor)
