"""Holding objectives against optima known in closed form, through the very engine that trains."""

from .cases import CASES, Case
from .rows import VerifyRow
from .runner import run_verify

__all__ = ["CASES", "Case", "VerifyRow", "run_verify"]
