"""Holding objectives against optima known in closed form, through the very engine that trains.

The module can be called: `dipp_toolkit.verify("integral_kl")` is `dipp_toolkit.verify.call.verify`.

The world it trains in is public, so that a file of anybody's own makes another: `GaussianReference`, `AffineGenerator`
and `ExactAssistant` fill the roles of reference, generator and assistant; `Gaussian` and `QuadraticReward` are what
they are made of.
"""

import sys
from types import ModuleType
from typing import Any

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


class _Verify(ModuleType):
    """The room's module, which is a function as well."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        from .call import verify

        return verify(*arguments, **keywords)


sys.modules[__name__].__class__ = _Verify
