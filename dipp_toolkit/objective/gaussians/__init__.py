"""A world without chance: Gaussian laws, linear and quadratic rewards, and objectives in closed form on them."""

from .law import Gaussian
from .problem import GaussianProblem, average_kl
from .reward import QuadraticReward
from .verification import ClosedForm, Verification

__all__ = ["ClosedForm", "Gaussian", "GaussianProblem", "QuadraticReward", "Verification", "average_kl"]
