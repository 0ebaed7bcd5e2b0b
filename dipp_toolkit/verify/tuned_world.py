"""The verification's reference after it was tuned: its laws moved by a known shift and spread wider.

`dipp verify --term tuned_difference` trains with it beside the world's own reference.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ..objective.gaussians import Gaussian
from .cases import make_reference
from .world import GaussianReference

SHIFT = (0.8, -0.5, 0.3)
SPREAD = 1.3
"""By what the covariance is multiplied."""


def tuned_reference() -> GaussianReference:
    """The world's reference, its laws moved by `SHIFT` and their covariance `SPREAD` times as large."""
    reference = make_reference()

    def moved(law: Gaussian) -> Gaussian:
        return Gaussian(law.mean + torch.tensor(SHIFT, dtype=law.mean.dtype), SPREAD * law.covariance)

    return replace(reference, empty=moved(reference.empty), given=moved(reference.given))
