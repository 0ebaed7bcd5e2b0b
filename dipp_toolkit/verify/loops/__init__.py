"""Anybody's training loop on the Gaussian world: what it does, seen from the networks it calls."""

from ..rows import LoopRow
from .runner import run_loop
from .world import LoopWorld

__all__ = ["LoopRow", "LoopWorld", "run_loop"]
