"""Holding objectives against optima known in closed form, through the very engine that trains.

The world it trains in is public, so that a file of anybody's own makes another: `GaussianReference`, `AffineGenerator`
and `ExactAssistant` fill the roles of reference, generator and assistant; `Gaussian` and `QuadraticReward` are what
they are made of.
"""

from ..objective.gaussians import Gaussian, QuadraticReward
from .cases import CASES, Case
from .gaussian_network import GaussianNetwork, gaussian_denoiser
from .rows import VerifyRow
from .runner import run_verify
from .thorough.runner import run_thorough
from .world import AffineGenerator, AffineMap, ExactAssistant, GaussianReference

__all__ = [
    "CASES",
    "AffineGenerator",
    "AffineMap",
    "Case",
    "ExactAssistant",
    "Gaussian",
    "GaussianNetwork",
    "GaussianReference",
    "QuadraticReward",
    "VerifyRow",
    "gaussian_denoiser",
    "run_thorough",
    "run_verify",
]
