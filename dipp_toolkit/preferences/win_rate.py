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


def votes_between_makers(comparisons: Iterable[Comparison]) -> dict[tuple[str, str], list[tuple[str, float]]]:
    """For every two makers that met, both ways round, prompt and outcome for the first of every vote between them.

    The outcome is 1 where the image of the first was preferred, 0 where the other one was, one half of a tie. Questions
    that a voter was asked again and comparisons of two images of one maker are left out.
    """
    found: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    for comparison in comparisons:
        first, second = comparison.first, comparison.second
        if not comparison.repeat and first.maker != second.maker:
            found[first.maker, second.maker].append((first.prompt, comparison.outcome))
            found[second.maker, first.maker].append((first.prompt, 1 - comparison.outcome))
    return dict(found)


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
    votes = votes_between_makers(comparisons).get((maker, over))
    if not votes:
        raise RequestError(f"No vote compares an image of {quoted(maker)} with one of {quoted(over)}.")
    return share_of_votes(votes, level)
