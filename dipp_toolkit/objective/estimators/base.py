"""What a gradient estimator is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from ..base import Sample

Score = Callable[[Tensor, Sequence[str]], Tensor]
"""Scores latents `(n, ...)` for their prompts: `(n,)`, float32, without a graph."""


@dataclass(frozen=True)
class Estimate:
    """What an estimator found out about a batch.

    Attributes:
        scores: of the samples themselves.
        gradient: of the score with respect to each sample, like `x0`.
        details: numbers for the log.
    """

    scores: Float[Tensor, " batch"]
    gradient: Float[Tensor, "batch ..."]
    details: Mapping[str, float | Tensor] = field(default_factory=dict)


@runtime_checkable
class GradientEstimator(Protocol):
    """Estimates the gradient of a black box on generated samples. What it learns on the way is its state.

    One that learns keeps what it finds in `estimate` apart until the update is made, as `terms.base.Committing` says.
    Where its class says `noises_per_prompt = 2`, the generator's batches hold as many samples of each prompt.
    """

    def estimate(self, sample: Sample, score: Score) -> Estimate:
        """Scores and gradients of a batch; random numbers come from `sample.random` alone."""

    def warnings(self) -> list[str]:
        """Why the reward can have had little effect; empty where all is well."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
