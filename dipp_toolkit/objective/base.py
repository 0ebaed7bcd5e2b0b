"""What a term is: it reads generated samples and returns a value and a gradient for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..config import TrainConfig
from ..diffusion.condition import Condition
from ..distributed import Processes
from ..protocols import Assistant, Reference, Reward


@dataclass(frozen=True)
class Sample:
    """A batch of generated samples, cut off from the generator's graph.

    Attributes:
        x0: latents, `(batch, ...)`, detached.
        condition: what each was generated for.
        noise: the noise each was generated from, like `x0`.
        random: the run's random source on `x0`'s device; a term draws from nothing else. Where several processes
            share the batch, `torch.randn(..., generator=random)` draws for this process alone, and
            `dipp_toolkit.distributed.shared_draws.normal` what one process of the whole batch would.
        step: number of the generator update, from 0.
        readout: which of the generator's steps made the samples, from 0, where each is supervised.
    """

    x0: Float[Tensor, "batch ..."]
    condition: Condition
    noise: Float[Tensor, "batch ..."]
    random: torch.Generator
    step: int = 0
    readout: int = 0


@dataclass(frozen=True)
class TermResult:
    """A term's value and gradient on a batch.

    Attributes:
        value: what the term measures, for each sample: a score for a reward, a divergence estimate for a divergence.
        grad: gradient of the term's loss with respect to each sample, like `x0`. The engine descends it, so a reward
            returns minus the gradient of its score. Where rewards went through the decoder together, the engine has
            their sum alone, and this is empty, `(batch, 0)`.
        details: further numbers for the log, by name. A tensor of one number is read together with all others, so
            that an accelerator is waited for once.
        scores: of the rewards inside the term's own formula, by the reward's name.
        predicted: whether `value` is the prediction of what stands in for a reward; the log keeps it apart.
        measured: what the size of a reward's gradient is measured of, like `grad`, where that is not `grad` itself.
        counted: 1 for each sample whose `value` was measured and 0 for the others, which no mean of values counts; None
            where all were.
    """

    value: Float[Tensor, " batch"]
    grad: Float[Tensor, "batch ..."]
    details: Mapping[str, float | Tensor] = field(default_factory=dict)
    scores: Mapping[str, Float[Tensor, " batch"]] = field(default_factory=dict)
    predicted: bool = False
    measured: Float[Tensor, "batch ..."] | None = None
    counted: Float[Tensor, " batch"] | None = None

    @property
    def mean_value(self) -> Float[Tensor, ""]:
        """The mean of the values that were measured; no number where none was."""
        values = self.value.float()
        return values.mean() if self.counted is None else (values * self.counted).sum() / self.counted.sum()


@runtime_checkable
class Term(Protocol):
    """One summand of the objective.

    Class attributes may declare its kind; see `uses_assistant`, `takes_rewards` and `side_of` of this module.
    """

    def __call__(self, sample: Sample) -> TermResult:
        """Value and gradient for a batch."""


@runtime_checkable
class ScoringTerm(Term, Protocol):
    """A reward as a term: it also gives scores alone."""

    def score(self, latents: Float[Tensor, "batch ..."], prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores without a gradient."""


@runtime_checkable
class ExplainingTerm(Term, Protocol):
    """A term that can say where numbers that are not finite came from."""

    def explain(self, sample: Sample, result: TermResult) -> str:
        """Which of its parts gave them, as part of a sentence; empty where it cannot tell.

        Args:
            sample: that of the result, with a random source of its own.
            result: the term's, not finite.
        """


@runtime_checkable
class WarningTerm(Term, Protocol):
    """A term that has something to say at a run's end about how it was trained."""

    def warnings(self) -> list[str]:
        """Sentences for the report and `summary.json`; none where all is well."""


@runtime_checkable
class Stateful(Protocol):
    """A term that changes from step to step; a checkpoint holds its state."""

    def state_dict(self) -> dict[str, Any]:
        """Nested dictionaries and lists of tensors, numbers, strings, booleans and None."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""


@runtime_checkable
class Committing(Protocol):
    """A term whose lasting state moves once an update, however many passes, processes and steps make its batch.

    Within an update every call sees the state of the updates before it and keeps what it finds apart. After all passes
    the engine calls one of the two, once, in every process: a process may talk with the others there. What is kept
    apart is in no state: a checkpoint is made between updates.
    """

    def commit(self) -> None:
        """The update's gradient is followed: take in what its passes found."""

    def discard(self) -> None:
        """The update is skipped, or failed: forget what its passes found. Also called where there is nothing."""


def uses_assistant(term: Term | None) -> bool:
    """Whether a term uses the assistant: unless its class says `uses_assistant = False`. Where no term of a run
    does, the assistant is not trained.

    Like those below it may be asked of a class, and of None, a term whose factory does not say what it makes."""
    return bool(getattr(term, "uses_assistant", True))


def takes_rewards(term: Term | None) -> bool:
    """Whether a term takes the run's rewards into its own formula: where its class says `takes_rewards = True`. The
    rewards are then no terms of their own."""
    return bool(getattr(term, "takes_rewards", False))


Side = Literal["rewards", "divergences"]
"""Which way a term pulls: towards rewards, or back to the reference."""


def side_of(term: Term | None) -> Side | None:
    """The side of a term: what its class says with `side = "divergences"`; unsaid, a reward's where it does not use the
    assistant, and None where it is both, as a diffused reward is."""
    declared: Side | None = getattr(term, "side", None)
    if declared is not None:
        return declared
    if not uses_assistant(term):
        return "rewards"
    return None if takes_rewards(term) else "divergences"


def asks_scores_alone(term: Term | None) -> bool:
    """Whether a term uses scores alone of the rewards that it takes, never their gradients: where its class says
    `asks_scores_alone = True`."""
    return bool(getattr(term, "asks_scores_alone", False))


def images_compared_by(term: Term | None) -> int:
    """How many images of a prompt a term is to be given together: what its class says with `samples_per_prompt`, as a
    `GroupReward` does, and 1 where it looks at each by itself."""
    return int(getattr(term, "samples_per_prompt", 1))


def keeps_latents(term: Term | None) -> bool:
    """Whether a term learns on latents of updates before: what its class says with `keeps_latents`. All of a run's then
    have to be of one size."""
    return bool(getattr(term, "keeps_latents", False))


@dataclass(frozen=True)
class TermContext:
    """What a term's factory may build on.

    Attributes:
        reference: the frozen reference.
        assistant: the score network of the generator's own samples.
        config: the run's settings.
        rewards: the run's rewards by name.
        reward_terms: the same rewards as terms, for a term that takes them into its own formula.
        name: the term's own, for messages.
        options: of this term in the settings, by name.
        processes: those that share the run; what a term learns on the way it learns with all of them.
        device: where the run computes.
    """

    reference: Reference
    assistant: Assistant
    config: TrainConfig
    rewards: Mapping[str, Reward] = field(default_factory=dict)
    reward_terms: Mapping[str, ScoringTerm] = field(default_factory=dict)
    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    processes: Processes = field(default_factory=Processes)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
