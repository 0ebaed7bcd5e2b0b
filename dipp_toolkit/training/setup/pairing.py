"""How many samples of a prompt the generator's batches hold: as many as what estimates a missing gradient needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...diffusion.condition import Condition
from ...objective.base import asks_scores_alone, takes_rewards
from ...objective.evaluate import WeightedTerm
from ...objective.terms.reward import RewardTerm
from ...objective.terms.reward_sum import RewardSum
from ..engine import Engine


def differentiated_rewards(terms: Sequence[WeightedTerm]) -> list[RewardTerm]:
    """The rewards that are asked for gradients: terms of their own, or in the formula of a term that takes them."""
    rewards: list[RewardTerm] = []
    for weighted in terms:
        inner = getattr(weighted.term, "rewards", None) if takes_rewards(weighted.term) else None
        if isinstance(inner, RewardSum) and not asks_scores_alone(weighted.term):
            rewards += [term for term in inner.terms.values() if isinstance(term, RewardTerm)]
        elif isinstance(weighted.term, RewardTerm):
            rewards.append(weighted.term)
    return rewards


def noises_needed(engine: Engine, condition: Condition, seed: int) -> int:
    """Samples of each prompt that the estimators in use ask for; 1 where there is none.

    Rewards that do not say whether they have a gradient are tried on latents that are noise.

    Args:
        engine: ready to step.
        condition: of the trial, as many prompts as are scored at a time.
        seed: of its latents; the run's random numbers stay as they are.

    Raises:
        RunError: a reward failed.
    """
    rewards = [reward for reward in differentiated_rewards(engine.terms) if reward.estimator is not None]

    def find_out() -> None:
        for reward in rewards:
            if reward.black_box is None:
                random = torch.Generator(engine.random.device).manual_seed(seed)
                reward.find_out(engine.draw_noise(len(condition), random), condition)

    engine.processes.together(find_out)
    return max((getattr(reward.estimator, "noises_per_prompt", 1) for reward in rewards if reward.black_box), default=1)
