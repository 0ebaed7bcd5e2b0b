"""What a term is: it looks at generated samples and returns a value and a gradient on each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..assistant import Assistant
from ..condition import Condition
from ..config import TrainConfig
from ..roles import Reference, Reward


@dataclass(frozen=True)
class Sample:
    """A batch of generated samples, cut off from the generator's graph.

    Attributes:
        x0: latents, `(batch, ...)`, detached.
        condition: what each was generated for.
        noise: the noise each was generated from, like `x0`.
        random: the run's random source on `x0`'s device; a term draws from nothing else.
        step: number of the generator update, from 0.
    """

    x0: Float[Tensor, "batch ..."]
    condition: Condition
    noise: Float[Tensor, "batch ..."]
    random: torch.Generator
    step: int = 0


@dataclass(frozen=True)
class TermResult:
    """What a term says about a batch.

    Attributes:
        value: what the term measures, for each sample: a score for a reward, a divergence estimate for a divergence.
        grad: gradient of the term's loss with respect to each sample, like `x0`. The engine descends it, so a reward
            returns minus the gradient of its score.
        details: further numbers for the log, by name.
    """

    value: Float[Tensor, " batch"]
    grad: Float[Tensor, "batch ..."]
    details: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Term(Protocol):
    """One summand of the objective."""

    def __call__(self, sample: Sample) -> TermResult:
        """Value and gradient for a batch."""


@runtime_checkable
class Stateful(Protocol):
    """A term that changes from step to step; a checkpoint holds its state."""

    def state_dict(self) -> dict[str, Any]:
        """Nested dictionaries and lists of tensors, numbers, strings, booleans and None."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""


@dataclass(frozen=True)
class TermContext:
    """What a term's factory may build on.

    Attributes:
        reference: the frozen reference.
        assistant: the score network of the generator's own samples.
        config: the run's settings.
        rewards: the run's rewards by name, for terms that use them in another way than `reward` does.
    """

    reference: Reference
    assistant: Assistant
    config: TrainConfig
    rewards: Mapping[str, Reward] = field(default_factory=dict)
