"""What votes say of makers, of voters and of rewards: a leaderboard's part that people made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import RequestError
from ...evaluation.bradley_terry import ALPHA, ELO
from ...evaluation.intervals import Interval
from ...preferences.agreement import (
    CHANCE,
    Agreement,
    against_all,
    agreement_of_each_voter,
    agreement_of_voters,
    agreement_with_reward,
    consistency,
    consistency_of_each_voter,
)
from ...preferences.maker_ratings import rate_makers
from ...preferences.pair import Comparison
from ...preferences.win_rate import share_of_votes, votes_between_makers
from ...utils.messages import Spelling

TIE = 0.5
MOST_VOTERS = 50
"""Voters that a page and a table show; JSON has all."""
UNNAMED = "(no name)"
"""What a maker without a name is called."""


@dataclass(frozen=True)
class RatedMaker:
    """A maker's row.

    Attributes:
        name: of the maker.
        rank: 1 plus the number of makers that are measurably better.
        rating: in Elo points; the makers' mean is 0.
        win_rate: share of the votes against all others, ties half.
        votes: in which one of its images stood against another maker's.
    """

    name: str
    rank: int
    rating: Interval
    win_rate: Interval
    votes: int

    @property
    def label(self) -> str:
        """What it is called where it is shown."""
        return self.name or UNNAMED


@dataclass(frozen=True)
class Voter:
    """A voter's row.

    Attributes:
        name: of the voter.
        votes: questions that were asked again left out.
        ties: of these, preferring neither.
        others: how far the voter agrees with the others on the same pairs; None where there are none.
        itself: how far the voter says the same when asked again; None where that was not asked.
    """

    name: str
    votes: int
    ties: int
    others: Agreement | None
    itself: Agreement | None


@dataclass(frozen=True)
class VoteBoard:
    """What all votes say.

    Attributes:
        votes: how many, questions that were asked again left out.
        ties: of these, preferring neither.
        repeats: questions that were asked again.
        prompts: that were voted on.
        images: that were voted on.
        makers: best first; none where no two were compared.
        win_rates: of the first maker over the second, with the number of votes, for all that met.
        voters: by the number of votes.
        together: how far voters agree with each other; None where no two were asked about the same pair.
        itself: how far voters say the same when asked again; None where nobody was.
        rewards: how far each reward agrees with the votes.
        warnings: sentences.
    """

    votes: int
    ties: int
    repeats: int
    prompts: int
    images: int
    makers: Sequence[RatedMaker]
    win_rates: Mapping[tuple[str, str], tuple[Interval, int]]
    voters: Sequence[Voter]
    together: Agreement | None
    itself: Agreement | None
    rewards: Mapping[str, Agreement]
    warnings: Sequence[str]

    @property
    def summary(self) -> str:
        """How many votes there are and on what, as a sentence."""
        again = f"; {counted(self.repeats, 'question')} asked again, which count in no rating" if self.repeats else ""
        return (
            f"{counted(self.votes, 'vote')} of {counted(len(self.voters), 'voter')} on {counted(self.images, 'image')} "
            f"of {counted(self.prompts, 'prompt')}, {counted(self.ties, 'tie')} among them{again}."
        )

    @property
    def shown_voters(self) -> Sequence[Voter]:
        """Those with most votes: a dataset may have thousands."""
        return self.voters[:MOST_VOTERS]

    @property
    def agreements(self) -> dict[str, Agreement]:
        """What is measured against what people prefer, by the name of its row: people first, then rewards."""
        people = {"people, one with another": self.together, "people, asked again": self.itself}
        spelling = Spelling(self.rewards)
        rewards = {spelling.name(name): found for name, found in self.rewards.items()}
        return {name: found for name, found in people.items() if found is not None} | rewards

    @property
    def categories(self) -> list[str]:
        """Categories of prompts in which anything was measured."""
        return sorted({name for found in self.agreements.values() for name in found.by_category})

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        win_rates = [
            {"maker": maker, "over": over, "votes": count, **interval.as_dict()}
            for (maker, over), (interval, count) in self.win_rates.items()
        ]
        return {
            **{name: getattr(self, name) for name in ("votes", "ties", "repeats", "prompts", "images")},
            "makers": [asdict(maker) for maker in self.makers],
            "win_rates": win_rates,
            "voters": [
                {
                    "name": voter.name,
                    "votes": voter.votes,
                    "ties": voter.ties,
                    "agreement_with_others": _agreement_dict(voter.others),
                    "consistency": _agreement_dict(voter.itself),
                }
                for voter in self.voters
            ],
            "agreement_of_voters": _agreement_dict(self.together),
            "consistency": _agreement_dict(self.itself),
            "rewards": {name: _agreement_dict(found) for name, found in self.rewards.items()},
            "warnings": list(self.warnings),
        }


def counted(count: int, noun: str) -> str:
    """`1 vote`, `1,200 votes`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def percent(share: float) -> str:
    """`62 %`."""
    return f"{100 * share:.0f} %"


def percents(interval: Interval) -> str:
    """`51 to 72 %`."""
    return f"{100 * interval.low:.0f} to {100 * interval.high:.0f} %"


def _agreement_dict(found: Agreement | None) -> dict[str, Any] | None:
    if found is None:
        return None
    categories = {name: {**share.as_dict(), "count": count} for name, (share, count) in found.by_category.items()}
    return {**found.share.as_dict(), "count": found.count, "by_category": categories}


def make_vote_board(
    comparisons: Sequence[Comparison],
    scores: Mapping[str, Mapping[int, float]] | None = None,
    notices: Sequence[str] = (),
) -> VoteBoard:
    """Sum up votes.

    Args:
        comparisons: at least one.
        scores: of rewards by name, of every image that was voted on by its id.
        notices: what was left out where they were read, to stand among the warnings.

    Raises:
        RequestError: there is no vote.
    """
    asked = [comparison for comparison in comparisons if not comparison.repeat]
    if not asked:
        raise RequestError("There are no votes to show; expected one at least, as dipp vote takes them.")
    ends = [image for comparison in comparisons for image in (comparison.first, comparison.second)]
    rewards = {name: _reward_agreement(asked, own) for name, own in (scores or {}).items()}
    met = votes_between_makers(asked)
    makers, ratings_warnings = _makers(asked, met)
    return VoteBoard(
        votes=len(asked),
        ties=_ties(asked),
        repeats=len(comparisons) - len(asked),
        prompts=len({image.prompt for image in ends}),
        images=len({image.id for image in ends}),
        makers=makers,
        win_rates={pair: (share_of_votes(votes), len(votes)) for pair, votes in met.items()},
        voters=_voters(comparisons),
        together=agreement_of_voters(comparisons),
        itself=consistency(comparisons),
        rewards=rewards,
        warnings=[*notices, *_doubts(asked), *ratings_warnings, *against_all(comparisons), *_contrary(rewards)],
    )


def _reward_agreement(asked: Sequence[Comparison], scores: Mapping[int, float]) -> Agreement:
    found = agreement_with_reward(asked, scores)
    assert found is not None, "there is at least one vote"
    return found


def _contrary(rewards: Mapping[str, Agreement]) -> list[str]:
    """A sentence for every reward that prefers what people reject."""
    spelling = Spelling(rewards)
    return [
        f"The reward '{spelling.name(name)}' agrees with the votes on {percent(found.share.mean)} "
        f"({percents(found.share)}), less than chance: it prefers what these people reject, or preferred and rejected "
        "images were swapped where the votes come from."
        for name, found in rewards.items()
        if found.share.high < CHANCE
    ]


def _ties(comparisons: Iterable[Comparison]) -> int:
    return sum(comparison.outcome == TIE for comparison in comparisons)


def _doubts(asked: Sequence[Comparison]) -> list[str]:
    """What makes all numbers worth little."""
    sentences = []
    if _ties(asked) == len(asked):
        sentences.append(
            f"All {len(asked)} votes are ties, so that nothing is told apart: the images are too much alike, or the "
            "voters always chose neither."
        )
    if len({comparison.first.prompt for comparison in asked}) == 1:
        sentences.append(
            "All votes are on one prompt, and its intervals say nothing of other prompts; votes on ten or more say "
            "something."
        )
    return sentences


def _makers(
    asked: Sequence[Comparison], met: Mapping[tuple[str, str], Sequence[tuple[str, float]]]
) -> tuple[list[RatedMaker], list[str]]:
    if not met:
        names = dict.fromkeys(image.maker or UNNAMED for one in asked for image in (one.first, one.second))
        made = f"have one maker, {next(iter(names))}" if len(names) == 1 else "are compared with others of their maker"
        return [], [f"All images that were voted on {made}, so that there are no ratings of makers."]
    ratings, apart = rate_makers(asked)
    ranks = ratings.ranks()
    rows = []
    for index, name in enumerate(ratings.names):
        own = [vote for other in ratings.names for vote in met.get((name, other), ())]
        rows.append(RatedMaker(name, ranks[index], ratings.interval(index), share_of_votes(own), len(own)))
    rows.sort(key=lambda maker: -maker.rating.mean)
    reach = ELO / (2 * ALPHA) ** 0.5
    held = (
        f"{apart} The ratings are held by the penalty alone there, a prior of {reach:.0f} Elo points: read who is "
        "better from them, and not by how much."
    )
    return rows, [held] if apart else []


def _voters(comparisons: Sequence[Comparison]) -> list[Voter]:
    others, itself = agreement_of_each_voter(comparisons), consistency_of_each_voter(comparisons)
    own: dict[str, list[Comparison]] = {comparison.voter: [] for comparison in comparisons}
    for comparison in comparisons:
        if not comparison.repeat:
            own[comparison.voter].append(comparison)
    rows = [Voter(name, len(votes), _ties(votes), others.get(name), itself.get(name)) for name, votes in own.items()]
    return sorted(rows, key=lambda voter: -voter.votes)
