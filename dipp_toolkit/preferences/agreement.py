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
FEW = 20
"""Voters up to whom one is named for less than chance even where it may be chance."""


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


def agreement_of_each_voter(comparisons: Iterable[Comparison]) -> dict[str, Agreement]:
    """How far every voter agrees with all others on the same pairs; voters who share no pair are left out."""
    observed: dict[str, list[_Agreed]] = defaultdict(list)
    for pair, said in _said(comparisons).values():
        for both in combinations(said, 2):
            value = agree(*(said[voter] for voter in both))
            for voter in both:
                observed[voter].append(_Agreed(pair.prompt, pair.category, value))
    return {voter: found for voter, own in observed.items() if (found := _agreement(own)) is not None}


def consistency(comparisons: Iterable[Comparison]) -> Agreement | None:
    """How far voters agree with themselves where they are asked again; None where none were.

    Args:
        comparisons: those with `repeat` are held against the voter's others of the same pair.
    """
    return _agreement(agreed for _, agreed in _repeats(list(comparisons)))


def consistency_of_each_voter(comparisons: Iterable[Comparison]) -> dict[str, Agreement]:
    """The same for every voter; those who were not asked again are left out."""
    observed: dict[str, list[_Agreed]] = defaultdict(list)
    for voter, agreed in _repeats(list(comparisons)):
        observed[voter].append(agreed)
    return {voter: found for voter, own in observed.items() if (found := _agreement(own)) is not None}


def _repeats(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, _Agreed]]:
    said = _said(comparisons)
    for comparison in comparisons:
        before = said.get(comparison.pair)
        if comparison.repeat and before is not None and comparison.voter in before[1]:
            value = agree(_oriented(comparison), before[1][comparison.voter])
            yield comparison.voter, _Agreed(comparison.first.prompt, comparison.first.category, value)


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
    with that one. Of two who remain nothing says which is right, and both are named. Among more than `FEW` voters one
    spoils nobody else's number, and chance has some below one half: those are named who are so beyond chance.
    """
    found = agreement_of_each_voter(comparisons)
    if len(found) > FEW:
        beyond = [voter for voter, agreement in found.items() if agreement.share.high < CHANCE]
        return [_against([voter], found[voter].share) for voter in sorted(beyond, key=lambda v: found[v].share.mean)]
    sentences = []
    while found:
        least = min(found, key=lambda voter: found[voter].share.mean)
        if found[least].share.mean >= CHANCE:
            break
        who = list(found) if len(found) == 2 else [least]
        sentences.append(_against(who, found[least].share))
        comparisons = [comparison for comparison in comparisons if comparison.voter not in who]
        found = agreement_of_each_voter(comparisons)
    return sentences


def _against(who: Sequence[str], share: Interval) -> str:
    named = f"The voters '{who[0]}' and '{who[1]}' agree" if len(who) > 1 else f"The voter '{who[0]}' agrees"
    return (
        f"{named} with {'each other' if len(who) > 1 else 'the others'} on {100 * share.mean:.0f} % of the pairs that "
        f"both were asked about ({100 * share.low:.0f} to {100 * share.high:.0f} %), "
        f"{'less than chance' if share.high < CHANCE else 'which may still be chance'}: ask whether the question was "
        "understood. The votes are counted all the same."
    )


def _said(
    comparisons: Iterable[Comparison],
) -> dict[frozenset[int], tuple[Candidate, dict[str, float]]]:
    """For each pair of images one of them, and every voter's mean outcome for the image with the lower id."""
    told: dict[frozenset[int], tuple[Candidate, dict[str, list[float]]]] = {}
    for comparison in comparisons:
        if not comparison.repeat:
            _, voters = told.setdefault(comparison.pair, (comparison.first, defaultdict(list)))
            voters[comparison.voter].append(_oriented(comparison))
    return {
        pair: (image, {voter: sum(values) / len(values) for voter, values in voters.items()})
        for pair, (image, voters) in told.items()
    }


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
