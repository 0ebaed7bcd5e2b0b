"""Bradley-Terry ratings of makers from votes on their images."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..errors import RequestError
from ..evaluation.bradley_terry import ALPHA, PairVotes, Ratings, apart, rate
from .pair import Comparison


def maker_votes(comparisons: Iterable[Comparison]) -> PairVotes:
    """The votes between images of two makers, as numbers; makers in the order in which they come up.

    Questions that a voter was asked again are left out, and so are comparisons of two images of one maker, which say
    nothing of makers.
    """
    makers: dict[str, int] = {}
    prompts: dict[str, int] = {}
    rows = []
    for comparison in comparisons:
        first, second = comparison.first.maker, comparison.second.maker
        if not comparison.repeat and first != second:
            pair = [makers.setdefault(maker, len(makers)) for maker in (first, second)]
            rows.append((*pair, comparison.outcome, prompts.setdefault(comparison.first.prompt, len(prompts))))
    columns = list(zip(*rows, strict=True)) or [()] * 4
    first_items, second_items, asked = (torch.tensor(columns[index], dtype=torch.long) for index in (0, 1, 3))
    outcomes = torch.tensor(columns[2], dtype=torch.float64)
    return PairVotes(list(makers), first_items, second_items, outcomes, asked)


def rate_makers(comparisons: Iterable[Comparison], alpha: float = ALPHA) -> tuple[Ratings, str]:
    """Ratings of makers, and a sentence where they would be infinite but for the penalty.

    Args:
        comparisons: any.
        alpha: the penalty.

    Returns:
        The ratings, makers in the order in which they come up, and the sentence; empty where there is none to say.

    Raises:
        RequestError: no two makers were compared, or there is no penalty and a rating is infinite.
    """
    votes = maker_votes(comparisons)
    if not len(votes.first):
        raise RequestError(
            "No vote compares the images of two makers, so that there is nothing to rate; expected images of two "
            "makers or more for each prompt, as in: dipp vote FOLDER --generators ONE,OTHER --prompts SET"
        )
    reason = apart(votes.wins(), votes.names)
    if reason and not alpha:
        raise RequestError(f"The ratings are infinite without a penalty. {reason}")
    return rate(votes, alpha), reason
