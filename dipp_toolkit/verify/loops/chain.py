r"""The chain of an affine generator's steps: which Gaussian each step reads, and which it makes, in closed form.

Step k reads $x_0^k = A_k x_{t_k} + b_k$ off its input. From $x_{t_1} = z \sim N(0, I)$ the next input is

- `renoise`: $x_{t_{k+1}} = \alpha x_0^k + \sigma \epsilon$ with fresh noise (DMD2, multistep consistency sampling);
- `ode`: $x_{t_{k+1}} = \alpha x_0^k + \sigma\, (x_{t_k} - \alpha_{t_k} x_0^k) / \sigma_{t_k}$, DDIM and, on the
  straight line of flow matching, Euler's method.

All of it is affine, so all laws are Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ...objective.gaussians import Gaussian

Sampler = Literal["renoise", "ode"]


@dataclass(frozen=True)
class Chain:
    """How the steps of a generator follow each other.

    Attributes:
        alpha: signal coefficient of each step's time.
        sigma: noise coefficient of it.
        sampler: how a step's input is made of the step before.
    """

    alpha: Float[Tensor, " steps"]
    sigma: Float[Tensor, " steps"]
    sampler: Sampler

    def made(self, read: Gaussian, matrix: Float[Tensor, "d d"], bias: Float[Tensor, " d"]) -> Gaussian:
        """The law of $A x + b$."""
        return Gaussian(matrix @ read.mean + bias, matrix @ read.covariance @ matrix.mT)

    def next_read(self, read: Gaussian, matrix: Float[Tensor, "d d"], bias: Float[Tensor, " d"], step: int) -> Gaussian:
        """The law that the step after `step` reads."""
        alpha, sigma = self.alpha[step + 1], self.sigma[step + 1]
        identity = torch.eye(len(bias), dtype=bias.dtype)
        if self.sampler == "renoise":
            made = self.made(read, matrix, bias)
            return Gaussian(alpha * made.mean, alpha.square() * made.covariance + sigma.square() * identity)
        ratio = sigma / self.sigma[step]
        share = alpha - ratio * self.alpha[step]
        return self.made(read, share * matrix + ratio * identity, share * bias)

    def reads(self, matrices: Float[Tensor, "steps d d"], biases: Float[Tensor, "steps d"]) -> list[Gaussian]:
        """The law that each step reads, differentiable in the parameters of the steps before it."""
        dimension = biases.shape[1]
        laws = [Gaussian(torch.zeros(dimension, dtype=biases.dtype), torch.eye(dimension, dtype=biases.dtype))]
        for step in range(len(biases) - 1):
            laws.append(self.next_read(laws[-1], matrices[step], biases[step], step))
        return laws

    def solve(self, law: Gaussian) -> tuple[Float[Tensor, "steps d d"], Float[Tensor, "steps d"]]:
        r"""Parameters with which every step makes samples of one law.

        $A_k = S^{1/2} R_k C_k^{-1/2}$ and $b_k = m - A_k m_k$ for the input $N(m_k, C_k)$. A mixture of the
        steps' samples is then Gaussian too, so its score has a closed form. $R_k$ are rotations, different at each
        step, so that no matrix is symmetric.
        """
        dimension, matrices, biases = len(law.mean), [], []
        read = Gaussian(torch.zeros_like(law.mean), torch.eye(dimension, dtype=law.mean.dtype))
        for step in range(len(self.alpha)):
            values, vectors = torch.linalg.eigh(read.covariance)
            whiten = vectors @ values.rsqrt().diag() @ vectors.mT
            turn = torch.linalg.qr(torch.eye(dimension, dtype=law.mean.dtype) + 0.3 * _skew(dimension, step)).Q
            matrix = torch.linalg.cholesky(law.covariance) @ turn @ whiten
            matrices.append(matrix)
            biases.append(law.mean - matrix @ read.mean)
            if step + 1 < len(self.alpha):
                read = self.next_read(read, matrices[-1], biases[-1], step)
        return torch.stack(matrices), torch.stack(biases)


def _skew(dimension: int, step: int) -> Tensor:
    entries = torch.arange(1.0, dimension * dimension + 1, dtype=torch.float64).reshape(dimension, dimension)
    entries = torch.sin(entries + step)
    return entries - entries.mT
