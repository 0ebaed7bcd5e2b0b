r"""Agreement: of voters with each other and with themselves, and of rewards with voters.

Of one pair of images an outcome $a$ is 1, 0 or, of a tie, one half. Two outcomes agree by $a b + (1 - a)(1 - b)$: 1
where both prefer the same image, 0 where they prefer different ones, and one half where one of them is a tie, which is
what a coin in its place would get. So one half is chance, however many ties there are. Where somebody has several
outcomes of a pair, their mean stands for them.

People agree with each other no better than two of them do, so that their agreement is about what a reward can reach:
one that agrees with a person as often as another person does is as good as a person. Intervals are over prompts, by
`clustered_share_interval`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from ..evaluation.intervals import Interval
from .pair import Candidate, Comparison
from .win_rate import share_of_votes

CHANCE = 0.5


@dataclass(frozen=True)
class Agreement:
    """How often two agree.

    Attributes:
        share: from 0 to 1, with its interval over prompts; one half is chance.
        count: of what it is a share: pairs of voters on the same pair of images, questions asked again, or votes.
        by_category: the same for the prompts of each category, where prompts have one; its name before it.
    """

    share: Interval
    count: int
    by_category: Mapping[str, tuple[Interval, int]]


@dataclass(frozen=True)
class _Agreed:
    """One observation: which prompt it is on, and how far two outcomes agree."""

    prompt: str
    category: str
    value: float


def agree(one: float, other: float) -> float:
    """How far two outcomes of a pair agree, from 0 to 1."""
    return one * other + (1 - one) * (1 - other)


def agreement_of_voters(comparisons: Iterable[Comparison]) -> Agreement | None:
    """How far voters agree with each other where two of them were asked about the same pair; None where none were."""
    return _agreement(
        _Agreed(pair.prompt, pair.category, agree(*both))
        for pair, said in _said(comparisons).values()
        for both in combinations(said.values(), 2)
    )


def agreement_of_voter(comparisons: Iterable[Comparison], voter: str) -> Agreement | None:
    """How far a voter agrees with every other one on the same pairs; None where there are no such pairs."""
    return _agreement(
        _Agreed(pair.prompt, pair.category, agree(said[voter], outcome))
        for pair, said in _said(comparisons).values()
        if voter in said
        for other, outcome in said.items()
        if other != voter
    )


def consistency(comparisons: Iterable[Comparison], voter: str | None = None) -> Agreement | None:
    """How far voters agree with themselves where they are asked again; None where none were.

    Args:
        comparisons: those with `repeat` are held against the voter's others of the same pair.
        voter: a single one; all of them where None.
    """
    comparisons = list(comparisons)
    said = _said(comparisons)

    def repeats() -> Iterator[_Agreed]:
        for comparison in comparisons:
            before = said.get(_pair_of(comparison))
            if not comparison.repeat or before is None or comparison.voter not in before[1]:
                continue
            if voter is None or comparison.voter == voter:
                value = agree(_oriented(comparison), before[1][comparison.voter])
                yield _Agreed(comparison.first.prompt, comparison.first.category, value)

    return _agreement(repeats())


def agreement_with_reward(comparisons: Iterable[Comparison], scores: Mapping[int, float]) -> Agreement | None:
    """How far a reward agrees with every vote; None where there is no vote. Equal scores are a tie.

    Args:
        comparisons: questions that a voter was asked again are left out.
        scores: the reward's, by the id of an image.
    """

    def votes() -> Iterator[_Agreed]:
        for comparison in comparisons:
            if not comparison.repeat:
                first, second = scores[comparison.first.id], scores[comparison.second.id]
                prefers = 0.5 if first == second else float(first > second)
                value = agree(comparison.outcome, prefers)
                yield _Agreed(comparison.first.prompt, comparison.first.category, value)

    return _agreement(votes())


def against_all(comparisons: Sequence[Comparison]) -> list[str]:
    """A sentence for every voter who agrees with the others less often than a coin would; their votes count all the
    same.

    The one who agrees least is named first and left out for the next, so that nobody is named for having been compared
    with that one. Of two who remain nothing says which is right, and both are named.
    """
    sentences: list[str] = []
    comparisons = list(comparisons)
    while True:
        voters = list(dict.fromkeys(comparison.voter for comparison in comparisons))
        found = {voter: agreement_of_voter(comparisons, voter) for voter in voters}
        shares = {voter: agreement.share for voter, agreement in found.items() if agreement is not None}
        least = min(shares, key=lambda voter: shares[voter].mean, default=None)
        if least is None or shares[least].mean >= CHANCE:
            return sentences
        share = shares[least]
        who = [voter for voter in shares if voter == least or len(shares) == 2]
        named = f"The voters '{who[0]}' and '{who[1]}' agree" if len(who) > 1 else f"The voter '{least}' agrees"
        others = "each other" if len(who) > 1 else "the others"
        surely = "less than chance" if share.high < CHANCE else "which may still be chance"
        sentences.append(
            f"{named} with {others} on {100 * share.mean:.0f} % of the pairs that both were asked about "
            f"({100 * share.low:.0f} to {100 * share.high:.0f} %), {surely}: ask whether the question was understood. "
            "The votes are counted all the same."
        )
        comparisons = [comparison for comparison in comparisons if comparison.voter not in who]


def _said(
    comparisons: Iterable[Comparison],
) -> dict[frozenset[int], tuple[Candidate, dict[str, float]]]:
    """For each pair of images one of them, and every voter's mean outcome for the image with the lower id."""
    told: dict[frozenset[int], tuple[Candidate, dict[str, list[float]]]] = {}
    for comparison in comparisons:
        if not comparison.repeat:
            _, voters = told.setdefault(_pair_of(comparison), (comparison.first, defaultdict(list)))
            voters[comparison.voter].append(_oriented(comparison))
    return {
        pair: (image, {voter: sum(values) / len(values) for voter, values in voters.items()})
        for pair, (image, voters) in told.items()
    }


def _pair_of(comparison: Comparison) -> frozenset[int]:
    return frozenset((comparison.first.id, comparison.second.id))


def _oriented(comparison: Comparison) -> float:
    """The outcome for the image with the lower id, whichever was shown on the left."""
    return comparison.outcome if comparison.first.id < comparison.second.id else 1 - comparison.outcome


def _agreement(observed: Iterable[_Agreed]) -> Agreement | None:
    observed = list(observed)
    if not observed:
        return None
    categories: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for one in observed:
        if one.category:
            categories[one.category].append((one.prompt, one.value))
    return Agreement(
        share_of_votes((one.prompt, one.value) for one in observed),
        len(observed),
        {name: (share_of_votes(votes), len(votes)) for name, votes in categories.items()},
    )
