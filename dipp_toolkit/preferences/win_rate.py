"""How often the images of one maker are preferred to those of another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch

from ..errors import RequestError
from ..evaluation.intervals import Interval, clustered_share_interval
from ..utils.messages import quoted
from .pair import Comparison


def share_of_votes(votes: Iterable[tuple[str, float]], level: float = 0.95) -> Interval:
    """A share of votes with its interval over prompts, by `clustered_share_interval`.

    Args:
        votes: prompt, and what counts of each vote, from 0 to 1; at least one.
        level: of the interval.
    """
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for prompt, counted in votes:
        by_prompt[prompt].append(counted)
    won = torch.tensor([sum(values) for values in by_prompt.values()], dtype=torch.float64)
    asked = torch.tensor([len(values) for values in by_prompt.values()], dtype=torch.float64)
    return clustered_share_interval(won, asked, level)


def votes_between(comparisons: Iterable[Comparison], maker: str, over: str) -> list[tuple[str, float]]:
    """Prompt and outcome for `maker` of every comparison with an image of `over`; questions asked again are left out.

    The outcome is 1 where the image of `maker` was preferred, 0 where the other one was, one half of a tie.
    """
    found = []
    for comparison in comparisons:
        makers = comparison.first.maker, comparison.second.maker
        if not comparison.repeat and maker != over and makers in ((maker, over), (over, maker)):
            outcome = comparison.outcome if makers[0] == maker else 1 - comparison.outcome
            found.append((comparison.first.prompt, outcome))
    return found


def win_rate(comparisons: Iterable[Comparison], maker: str, over: str, level: float = 0.95) -> Interval:
    """The share of votes between the images of two makers that `maker` won, ties half.

    Where the interval holds one half, the voters cannot tell the two makers apart: `interval.contains(0.5)`.

    Args:
        comparisons: any; those of others, and questions that a voter was asked again, are left out.
        maker: whose wins are counted.
        over: the other one.
        level: of the interval over prompts.

    Returns:
        From 0 to 1. Votes on one prompt go together, so that with few prompts the interval is wide, however many votes
        there are.

    Raises:
        RequestError: nobody voted between these two.
    """
    votes = votes_between(comparisons, maker, over)
    if not votes:
        raise RequestError(f"No vote compares an image of {quoted(maker)} with one of {quoted(over)}.")
    return share_of_votes(votes, level)
