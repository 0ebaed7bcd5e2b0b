r"""Six dimensions: a Gaussian reference whose axes are turned and whose variances go from 4 down to 0.01.

A latent is an image of two pixels, `(3, 2, 1)`. `upright` is the same world with its axes along the numbers, where the
weighting `dmd` has a closed form (`dmd_form`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...objective.gaussians import Gaussian, QuadraticReward
from ..gaussian_network import gaussian_denoiser
from ..world import AffineGenerator, AffineMap, GaussianReference
from .processes import PROCESSES, Process

SHAPE = (3, 2, 1)
SIZE = 6
PROMPT = "a Gaussian"

VARIANCES = torch.tensor([4.0, 1.5, 0.6, 0.2, 0.05, 0.01], dtype=torch.float64)
CURVATURES = torch.tensor([2.0, 1.0, 0.5, 0.2, 0.1, 0.0], dtype=torch.float64)
EMPTY = torch.tensor([-0.3, 0.5, 0.2, -0.1, 0.4, 0.0], dtype=torch.float64)
GIVEN = torch.tensor([0.6, -0.4, 0.5, 0.3, -0.2, 0.1], dtype=torch.float64)
SLOPE = torch.tensor([1.0, -0.6, 0.8, 0.3, -0.5, 0.7], dtype=torch.float64)
CENTRE = torch.tensor([-0.5, 1.0, 1.5, 0.0, -1.0, 0.5], dtype=torch.float64)

FIRST = torch.eye(SIZE, dtype=torch.float64)[0]
"""The axis along which the upright world's reward pulls: along one, the optimum under `dmd` stays upright."""


def rotation(angle: float) -> Float[Tensor, "6 6"]:
    """A rotation that turns every axis towards every other one."""
    above = torch.ones(SIZE, SIZE, dtype=torch.float64).triu(1)
    return torch.matrix_exp(angle * (above - above.mT))


def turned(spectrum: Tensor, angle: float) -> Float[Tensor, "6 6"]:
    """The symmetric matrix of these eigenvalues, its axes turned."""
    axes = rotation(angle)
    matrix = axes @ spectrum.diag() @ axes.mT
    return (matrix + matrix.mT) / 2


@dataclass
class SixReference(GaussianReference):
    """The reference, whose network knows the process as it is written in `processes` and not as the toolkit read it."""

    process: Process = PROCESSES["flow"]

    def __post_init__(self) -> None:
        self.denoiser = gaussian_denoiser(
            self.empty, self.given, self.schedule, self.prediction, self.process.network
        ).frozen()


def make_reference(process: Process, upright: bool = False) -> SixReference:
    """The reference under a process.

    Args:
        process: the forward process.
        upright: whether its axes are along the numbers.
    """
    covariance = VARIANCES.diag() if upright else turned(VARIANCES, 0.35)
    empty, given = Gaussian(EMPTY, covariance), Gaussian(GIVEN, covariance)
    return SixReference(empty, given, process.schedule, None, process.prediction, SHAPE, process)


def make_generator() -> AffineGenerator:
    """A generator that is wrong in everything: centred on 0, uncorrelated, of one width."""
    return AffineGenerator.standard(0.5, SHAPE)


def trial_generator(target: Gaussian, upright: bool = False) -> AffineGenerator:
    """A generator beside its target and at no special place.

    Args:
        target: the law it is beside.
        upright: whether it stretches along the numbers alone.
    """
    axes = torch.arange(SIZE, dtype=torch.float64)
    root = square_root(target.covariance)
    bent = (0.4 * torch.sin(1 + 2 * axes)).diag() if upright else 0.2 * torch.sin(1 + 3 * axes[:, None] + 5 * axes)
    matrix = root @ (torch.eye(SIZE, dtype=torch.float64) + bent)
    return AffineGenerator(AffineMap(matrix, target.mean + 0.5 * root @ torch.cos(axes)), SHAPE)


def curved_reward() -> QuadraticReward:
    """A quadratic reward whose axes are neither the reference's nor the numbers'; along one it is flat."""
    return QuadraticReward(SLOPE, turned(CURVATURES, -0.55), CENTRE)


def linear_reward() -> QuadraticReward:
    """A linear reward across all axes."""
    return QuadraticReward(SLOPE, torch.zeros(SIZE, SIZE, dtype=torch.float64), torch.zeros(SIZE, dtype=torch.float64))


def upright_reward(target: Gaussian) -> QuadraticReward:
    """A quadratic reward of the upright world: it pulls along the first axis and curves along all."""
    return QuadraticReward(0.4 * FIRST, CURVATURES.diag(), target.mean + 0.5 * FIRST)


def square_root(covariance: Tensor) -> Tensor:
    """The symmetric root."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ values.clamp_min(0).sqrt().diag() @ vectors.mT
