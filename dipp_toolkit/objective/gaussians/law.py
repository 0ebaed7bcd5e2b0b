r"""A Gaussian under the forward process: everything about it is known in closed form.

For $x_0 \sim N(m, S)$ and $x_t = \alpha x_0 + \sigma \epsilon$,

$$x_t \sim N(\alpha m, C), \quad C = \alpha^2 S + \sigma^2 I, \qquad
  E[x_0 | x_t] = m + \alpha S C^{-1} (x_t - \alpha m).$$
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import MultivariateNormal


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
