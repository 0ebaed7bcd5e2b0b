r"""A reward whose weight depends on the prompt: $w(c)\, r(x_0, c)$.

Text is worth reading where the prompt asks for text, and counting where it asks for two of something. The settings name
the prompts by their category in the prompt set, and the weight there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...utils.device import sent
from ..base import Sample, TermResult
from .reward import RewardTerm


@dataclass(frozen=True)
class PromptWeights:
    """Weights of a reward by prompt.

    Attributes:
        largest: the one with the largest size, which the term as a whole is weighed with; 0 only where all are.
        shares: of prompts that have their own weight: it over the largest, in [0, 1].
        otherwise: the same of all other prompts.
    """

    largest: float
    shares: Mapping[str, float]
    otherwise: float

    def of(self, prompts: Sequence[str]) -> list[float]:
        """Each prompt's weight over the largest."""
        return [self.shares.get(prompt, self.otherwise) for prompt in prompts]


@dataclass
class ForPrompts:
    """A reward as a term, weighed prompt by prompt.

    A reward with a gradient is not asked about samples whose prompts give it no weight. One without is: what estimates
    its gradient learns from all of them.

    Attributes:
        term: the reward as a term, with a decode of its own.
        weights: by prompt.
    """

    uses_assistant: ClassVar[bool] = False

    term: RewardTerm
    weights: PromptWeights

    def __call__(self, sample: Sample) -> TermResult:
        """As `RewardTerm`, the gradient times each prompt's share; samples that are not scored count in no mean.

        Raises:
            RunError: as for a `RewardTerm`.
        """
        prompts = sample.condition.prompts
        shares = self.weights.of(prompts)
        if self.term.black_box is None:
            self.term.find_out(sample.x0, sample.condition)
        rows = [row for row, share in enumerate(shares) if share]
        if self.term.black_box or len(rows) == len(prompts):
            result = self.term(sample)
            return replace(result, grad=_times(result.grad, shares), details={**result.details, "scored": 1.0})
        counted = sent(torch.tensor([float(bool(share)) for share in shares]), sample.x0.device)
        details = {"scored": len(rows) / len(prompts)}
        if not rows:
            return TermResult(torch.zeros_like(counted), torch.zeros_like(sample.x0), details, counted=counted)
        there = sent(torch.tensor(rows), sample.x0.device)
        part = replace(sample, x0=sample.x0[there], noise=sample.noise[there], condition=sample.condition[rows])
        result = self.term(part)
        grad = torch.zeros_like(sample.x0).index_copy(0, there, result.grad.to(sample.x0.dtype))
        value = result.value.new_zeros(len(prompts)).index_copy(0, there, result.value)
        return replace(
            result, value=value, grad=_times(grad, shares), details={**result.details, **details}, counted=counted
        )

    def score(self, latents: Float[Tensor, "batch ..."], prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores without a gradient, of all prompts and without weights."""
        return self.term.score(latents, prompts)

    def explain(self, sample: Sample, result: TermResult) -> str:
        """Which of the reward's parts gave numbers that are not finite."""
        return self.term.explain(sample, result)

    def warnings(self) -> list[str]:
        """Warnings about how the reward was trained."""
        return self.term.warnings()

    def commit(self) -> None:
        """What learns keeps what it found in the update's passes."""
        self.term.commit()

    def discard(self) -> None:
        """It drops it."""
        self.term.discard()

    def state_dict(self) -> dict[str, Any]:
        """What the reward's estimator has learned."""
        return self.term.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give it back."""
        self.term.load_state_dict(state)


def _times(gradient: Tensor, shares: Sequence[float]) -> Tensor:
    factors = sent(torch.tensor(shares, dtype=gradient.dtype), gradient.device)
    return gradient * factors.reshape(-1, *[1] * (gradient.ndim - 1))
