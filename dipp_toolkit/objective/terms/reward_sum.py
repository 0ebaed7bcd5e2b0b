"""The run's rewards as one, for a term that takes them into its own formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...config import TrainConfig
from ...errors import RequestError
from ...rewards.groups import samples_per_prompt
from ...utils.piecewise_linear import PiecewiseLinear
from ..advantages import Advantages
from ..base import Committing, Sample, ScoringTerm, Stateful, TermContext, WarningTerm
from .options import read_options
from .reward import RewardTerm


@dataclass(frozen=True)
class RewardSum:
    r"""$R = \alpha_{rew} \sum_i w_i r_i$, rewards without a gradient included: their estimators work here too.

    Attributes:
        terms: the rewards as terms, by name.
        weights: $\alpha_{rew} w_i$, by name.
        schedule: factors of $\alpha_{rew}$ at generator updates, where nothing else multiplies by them.
    """

    terms: Mapping[str, ScoringTerm] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    schedule: PiecewiseLinear | None = None

    @classmethod
    def build(
        cls, context: TermContext, scale: float | None = None, schedule: PiecewiseLinear | None = None
    ) -> RewardSum:
        """The run's rewards.

        Args:
            context: of the term that takes them.
            scale: of all weights; what the settings say unless given.
            schedule: its factors over the run, for a term with a divergence in its formula: rewards that are a term of
                their own are multiplied by them elsewhere.

        Raises:
            RequestError: the settings balance, clip or floor rewards, which is done to rewards that are terms.
        """
        check_plain(context.name, context.config)
        scale = context.config.alpha_rew if scale is None else scale
        weights = {name: scale * context.config.rewards.get(name, 0.0) for name in context.reward_terms}
        return cls(context.reward_terms, weights, schedule)

    def differentiate(self, sample: Sample) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        r"""$R$, `(B,)`, its gradient, like `x0`, and each reward's scores by name."""
        total, gradient, scores = sample.x0.new_zeros(len(sample.x0)), torch.zeros_like(sample.x0), {}
        factor = 1.0 if self.schedule is None else self.schedule(sample.step)
        for name, term in self.terms.items():
            result, weight = term(sample), factor * self.weights[name]
            scores[name] = result.value
            total = total + weight * result.value.to(total.dtype)
            gradient = gradient - weight * result.grad.to(gradient.dtype)
        return total, gradient, scores

    @property
    def compares_images(self) -> bool:
        """Whether a reward compares images of one prompt with each other."""
        return any(samples_per_prompt(term.reward) > 1 for term in self.terms.values() if isinstance(term, RewardTerm))

    def score(
        self, latents: Float[Tensor, "batch ..."], prompts: Sequence[str]
    ) -> tuple[Float[Tensor, " batch"], dict[str, Tensor]]:
        r"""$R$ and each reward's scores by name, without a gradient."""
        scores = {name: term.score(latents, prompts) for name, term in self.terms.items()}
        total = latents.new_zeros(len(latents))
        for name, values in scores.items():
            total = total + self.weights[name] * values.to(total.dtype)
        return total, scores

    def magnitude(self, scores: Mapping[str, Tensor]) -> Float[Tensor, " batch"]:
        r"""$\sum_i |w_i r_i|$ of each sample: the size of what R is the sum of, which its rounding goes by.

        Args:
            scores: each reward's, of one sample at least, by name.
        """
        return torch.stack([(self.weights[name] * values).abs().float() for name, values in scores.items()]).sum(0)

    def advantages(
        self, total: Float[Tensor, " batch"], scores: Mapping[str, Tensor], prompts: Sequence[str]
    ) -> Advantages:
        """Where each sample stands among those of its prompt.

        Args:
            total: R.
            scores: each reward's by name; empty where there is none, and then no sample stands out.
            prompts: one a sample.
        """
        return Advantages.among(total, self.magnitude(scores) if scores else torch.zeros_like(total), prompts)

    def commit(self) -> None:
        """The rewards' estimators keep what they found in the update's passes."""
        for term in self.terms.values():
            if isinstance(term, Committing):
                term.commit()

    def discard(self) -> None:
        """They drop it."""
        for term in self.terms.values():
            if isinstance(term, Committing):
                term.discard()

    def state_dict(self) -> dict[str, Any]:
        """What the rewards' estimators have learned."""
        return {name: term.state_dict() for name, term in self.terms.items() if isinstance(term, Stateful)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give it back."""
        for name, term in self.terms.items():
            if isinstance(term, Stateful) and name in state:
                term.load_state_dict(state[name])

    def warnings(self) -> list[str]:
        """Warnings of the rewards about how they were trained."""
        reporting = (term for term in self.terms.values() if isinstance(term, WarningTerm))
        return [warning for term in reporting for warning in term.warnings()]


class HoldsRewards:
    """A term with the run's rewards inside: what their estimators find and learn is kept through them.

    Attributes:
        rewards: the run's rewards as one.
    """

    rewards: RewardSum

    @classmethod
    def check_settings(cls, name: str, config: TrainConfig) -> None:
        """Refuse options that the term does not have, and settings that work on rewards which are terms of their own.

        Raises:
            RequestError: one is set.
        """
        read_options(cls, name, config.term_options.get(name, {}))
        check_plain(name, config)

    def commit(self) -> None:
        """The rewards' estimators keep what they found in the update's passes."""
        self.rewards.commit()

    def discard(self) -> None:
        """They drop it."""
        self.rewards.discard()

    def state_dict(self) -> dict[str, Any]:
        """What the rewards' estimators have learned; nothing where scores alone are asked for."""
        return {"rewards": self.rewards.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give it back."""
        self.rewards.load_state_dict(state.get("rewards", {}))


def check_plain(name: str, config: TrainConfig) -> None:
    """Refuse settings that work on rewards which are terms of their own.

    Raises:
        RequestError: one is set.
    """
    for setting, used in (
        (f"balance={config.balance}", config.balance != "sum"),
        ("reward_clip", config.reward_clip is not None),
        ("floors", bool(config.floors)),
        ("reward_for", bool(config.reward_for)),
    ):
        if used:
            raise RequestError(
                f"The setting {setting} does not work with the term '{name}': it adds the rewards up as weighted "
                "inside its own formula. Leave it out, or train with integral_kl."
            )
