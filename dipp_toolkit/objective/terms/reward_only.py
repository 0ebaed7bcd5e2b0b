"""No divergence: rewards alone, the generator free to cheat (ReFL, DRaFT-1).

On a one-step generator, ReFL (Xu et al. 2023, ImageReward) and DRaFT-1 (Clark et al. 2023) are the same thing: ascend
the reward's gradient through the one network pass, and hope that it does not find the reward's blind spots. It does.
This is the baseline that shows what the divergence is for. Nothing looks at the assistant, so it is not trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...config import TrainConfig
from ..base import Sample, TermContext, TermResult
from ..gaussians import GaussianProblem, Verification
from .options import read_options


@dataclass
class RewardOnly:
    """Nothing: value and gradient are zero, and the rewards are terms of their own as always."""

    uses_assistant: ClassVar[bool] = False
    verification: ClassVar[Verification] = Verification(cases=("quadratic",), patience=4)

    @classmethod
    def check_settings(cls, name: str, config: TrainConfig) -> None:
        """Refuse options; it takes none.

        Raises:
            RequestError: one was set.
        """
        read_options(cls, name, config.term_options.get(name, {}))

    def __call__(self, sample: Sample) -> TermResult:
        return TermResult(sample.x0.new_zeros(len(sample.x0)), torch.zeros_like(sample.x0))

    def closed_form(self, problem: GaussianProblem) -> Tensor:
        """Zero: with the reward added, the optimum is the reward's own maximum, and every sample is there."""
        return problem.law.mean.sum() * 0


def build(context: TermContext) -> RewardOnly:
    """The term as the run's settings ask for it.

    Raises:
        RequestError: an option was set; it takes none.
    """
    RewardOnly.check_settings(context.name, context.config)
    return RewardOnly()
