r"""How well a fitted reward agrees with votes that it has not seen, and whether its odds are to be believed.

The reward is a Bradley-Terry model: of two images the first is preferred with $\sigma(r_1 - r_2)$. It agrees with a
vote where the preferred image has the higher score. The unit of the interval is the prompt, as everywhere here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...evaluation.intervals import Interval
from ..win_rate import share_of_votes

EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of the bins of the probability that the reward gives to the image it prefers."""


@dataclass(frozen=True)
class CalibrationBin:
    """Votes on which a reward was about equally sure.

    Attributes:
        low: the least probability of the preferred side.
        high: the most.
        votes: how many there are.
        said: the mean probability.
        found: how often the votes agreed.
    """

    low: float
    high: float
    votes: int
    said: float
    found: float


@dataclass(frozen=True)
class Agreement:
    """A reward against votes.

    Attributes:
        votes: how many.
        prompts: on how many prompts.
        accuracy: the share of votes it agrees with, a tie of scores half; its interval is over prompts.
        loss: mean of $-\\log \\sigma$ of the preferred image's odds; $\\log 2 = 0.693$ says nothing.
        calibration: its odds against the votes.
    """

    votes: int
    prompts: int
    accuracy: Interval
    loss: float
    calibration: tuple[CalibrationBin, ...]

    def as_dict(self) -> dict[str, object]:
        """As `fit.json` holds it."""
        return asdict(self)


def agreement_of(odds: Float[Tensor, " votes"], prompts: Sequence[str]) -> Agreement:
    """A reward's agreement with votes.

    Args:
        odds: the preferred image's log-odds less the other's, one a vote, at least one.
        prompts: of each vote.
    """
    odds = odds.double()
    right = (odds > 0).double() + 0.5 * (odds == 0)
    sure = torch.sigmoid(odds.abs())
    bins = []
    for low, high in pairwise(EDGES):
        inside = (sure >= low) & ((sure < high) | (torch.tensor(high == EDGES[-1])))
        count = int(inside.sum())
        if count:
            bins.append(CalibrationBin(low, high, count, sure[inside].mean().item(), right[inside].mean().item()))
    share = share_of_votes(zip(prompts, right.tolist(), strict=True))
    return Agreement(len(odds), len(set(prompts)), share, -F.logsigmoid(odds).mean().item(), tuple(bins))
