"""Whether preferred and rejected images may have been swapped, which no column shows: a reward is asked.

A reward that has anything to do with what people prefer agrees with more than half of their votes. Where it agrees with
significantly fewer, the columns may be swapped, or the reward may be no guide here; a person has to look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import RequestError
from ..protocols import Reward
from ..rewards.groups import refuse_alone
from ..rewards.scores import ask
from .pair import Candidate, Comparison, fitted_on

SIGNIFICANT = 0.001
"""Probability with which a reward that knows nothing is said to disagree."""
MOST_PROMPTS = 256
"""So many prompts are asked about, evenly spaced; a few dozen show a swap."""


@dataclass(frozen=True)
class Direction:
    """How a reward agrees with votes.

    Attributes:
        label: of the reward.
        agreed: votes in which the preferred image scores higher.
        decided: votes between images with two scores.
        prompts_for: prompts with more votes that agree than disagree.
        prompts_against: prompts with fewer.
        p_value: the probability of so few prompts with agreement, or fewer, if each agreed with probability 1/2.
    """

    label: str
    agreed: int
    decided: int
    prompts_for: int
    prompts_against: int
    p_value: float

    @property
    def swapped(self) -> bool:
        """Whether the votes say significantly the opposite of the reward."""
        return self.p_value < SIGNIFICANT

    def sentence(self) -> str:
        """What was found, and what to do where the columns may be swapped."""
        share = f"{self.agreed:,} of {self.decided:,} votes"
        if not self.swapped:
            return f"{self.label} agrees with {share}."
        return (
            f"The columns of preferred and rejected images may be swapped: {self.label} agrees with only {share}, and "
            f"on {self.prompts_against:,} prompts with fewer than half (more than half on {self.prompts_for:,}; p = "
            f"{self.p_value:.1g}). Look at a few pairs; if they are swapped, rename the columns "
            "(Dataset.rename_columns). "
            "If they are right, this reward prefers what these voters do not."
        )


@torch.no_grad()
def check_direction(comparisons: Sequence[Comparison], reward: Reward, label: str = "the reward") -> Direction:
    r"""Ask a reward which image it prefers, and test whether votes say the opposite.

    Votes on one prompt are not independent, prompts nearly are: the test is the one-sided sign test over prompts, with
    $P(X \le k)$ of $X \sim \mathrm{Binomial}(n, 1/2)$ for $k$ of $n$ prompts in which more votes agree than disagree.

    Args:
        comparisons: votes; ties and repetitions do not count.
        reward: looks at single images; higher is better.
        label: of the reward, for messages.

    Raises:
        RequestError: an image is missing or damaged, the reward compares the images of a prompt, or no vote is for one
            of two images.
    """
    from scipy.stats import binom

    refuse_alone(label, reward, "A check of the direction")
    votes: dict[str, list[Comparison]] = defaultdict(list)
    for comparison in fitted_on(list(comparisons)):
        if comparison.winner is not None:
            votes[comparison.first.prompt].append(comparison)
    if not votes:
        raise RequestError(
            "No vote is for one of two images; expected votes that are no ties, to compare a reward with."
        )
    prompts = list(votes)
    asked = [prompts[index * len(prompts) // MOST_PROMPTS] for index in range(MOST_PROMPTS)]
    scores: dict[int, float] = {}

    def score(candidate: Candidate) -> float:
        if candidate.id not in scores:
            images = candidate.picture.read()[None]
            scores[candidate.id] = float(ask(label, reward, images, [candidate.prompt])[0])
        return scores[candidate.id]

    agreed = decided = wins = losses = 0
    for prompt in dict.fromkeys(asked if len(prompts) > MOST_PROMPTS else prompts):
        balance = 0
        for comparison in votes[prompt]:
            first, second = score(comparison.first), score(comparison.second)
            if first != second:
                right = (first > second) == (comparison.winner is comparison.first)
                agreed, decided, balance = agreed + right, decided + 1, balance + (1 if right else -1)
        wins, losses = wins + (balance > 0), losses + (balance < 0)
    return Direction(label, agreed, decided, wins, losses, float(binom.cdf(wins, wins + losses, 0.5)))
