"""Agreement and win rates: known by hand, ties half, over prompts, and a voter against all is named."""

from __future__ import annotations

import pytest

from dipp_toolkit.errors import RequestError
from dipp_toolkit.evaluation.bradley_terry import ELO
from dipp_toolkit.preferences.agreement import (
    against_all,
    agreement_of_each_voter,
    agreement_of_voters,
    agreement_with_reward,
    consistency,
    consistency_of_each_voter,
)
from dipp_toolkit.preferences.maker_ratings import rate_makers
from dipp_toolkit.preferences.pair import Candidate, Comparison
from dipp_toolkit.preferences.win_rate import win_rate
from fake_votes import Grey, fake_images, fake_votes, rating

A, B, C, D = (
    Candidate(
        number, f"prompt {number // 2}", ("one", "other")[number % 2], Grey(0.5), ("food", "animals")[number // 2]
    )
    for number in range(4)
)


def test_voters_are_compared_on_the_same_pairs_whichever_side_is_left() -> None:
    votes = [
        Comparison(A, B, 1.0, "ann"),
        Comparison(B, A, 0.0, "bob"),  # the same, seen the other way round
        Comparison(C, D, 1.0, "ann"),
        Comparison(C, D, 0.0, "bob"),
        Comparison(C, D, 0.5, "cyd"),
    ]
    found = agreement_of_voters(votes)
    assert found is not None and found.count == 4
    # Ann and Bob agree on one pair and not on the other; a tie is half an agreement with both.
    assert found.share.mean == (1 + 0 + 0.5 + 0.5) / 4
    assert found.by_category["food"][0].mean == 1 and found.by_category["animals"][0].mean == pytest.approx(1 / 3)
    own = agreement_of_each_voter(votes)
    assert {name: (one.share.mean, one.count) for name, one in own.items()} == {
        "ann": (pytest.approx(1.5 / 3), 3), "bob": (pytest.approx(1.5 / 3), 3), "cyd": (0.5, 2)
    }  # fmt: skip
    assert agreement_of_voters(votes[:1]) is None and agreement_of_each_voter(votes[:1]) == {}


def test_consistency_is_of_questions_asked_again_alone() -> None:
    votes = [
        Comparison(A, B, 1.0, "ann"),
        Comparison(B, A, 0.0, "ann", repeat=True),
        Comparison(C, D, 1.0, "bob"),
        Comparison(C, D, 0.0, "bob", repeat=True),
        Comparison(C, D, 1.0, "ann", repeat=True),  # of a vote that was taken back: nothing to hold it against
    ]
    found = consistency(votes)
    assert found is not None and (found.share.mean, found.count) == (0.5, 2)
    assert {name: one.share.mean for name, one in consistency_of_each_voter(votes).items()} == {"ann": 1.0, "bob": 0.0}
    assert consistency(votes[:1]) is None
    # What is asked again counts nowhere else.
    assert agreement_of_voters(votes) is None
    assert win_rate(votes, "one", "other").mean == 1


def test_a_reward_agrees_with_votes_by_the_order_of_its_scores() -> None:
    votes = [Comparison(A, B, 1.0, "ann"), Comparison(C, D, 0.0, "ann"), Comparison(D, C, 0.5, "bob")]
    for scores, share in (
        ({0: 2.0, 1: 1.0, 2: 1.0, 3: 2.0}, (1 + 1 + 0.5) / 3),
        ({0: 1.0, 1: 2.0, 2: 2.0, 3: 1.0}, (0 + 0 + 0.5) / 3),
        ({0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}, 0.5),
    ):
        found = agreement_with_reward(votes, scores)
        assert found is not None and found.share.mean == pytest.approx(share)
    assert agreement_with_reward([], {}) is None


def test_the_hidden_preference_agrees_with_its_voter_as_often_as_it_does_not_err() -> None:
    images = fake_images(40)
    votes = fake_votes(images, count=1500, wrong=0.2)
    found = agreement_with_reward(votes, {image.id: rating(image) for image in images})
    assert found is not None and found.share.contains(0.8) and found.share.high - found.share.low < 0.08
    assert set(found.by_category) == {"food", "animals"}
    assert sum(count for _, count in found.by_category.values()) == found.count == 1500


def test_a_voter_against_all_is_named_and_nobody_else() -> None:
    images = fake_images(10)
    good = [vote for seed in range(3) for vote in fake_votes(images, f"good {seed}", 150, seed, wrong=0.1)]
    assert against_all(good) == []
    bad = fake_votes(images, "upside down", 150, 9, wrong=0.95)
    (sentence,) = against_all([*good, *bad])
    assert sentence.startswith("The voter 'upside down' agrees with the others on 1")
    assert "less than chance: ask whether the question was understood" in sentence
    # Two who contradict each other: nothing says who is right.
    (both,) = against_all([*fake_votes(images, "good", 150), *bad])
    assert both.startswith("The voters 'good' and 'upside down' agree with each other on 1")
    # Among many, one is named beyond chance alone.
    many = [vote for seed in range(21) for vote in fake_votes(images, f"good {seed}", 30, seed, wrong=0.3)]
    (sentence,) = against_all([*many, *bad])
    assert sentence.startswith("The voter 'upside down'")
    # A single pair on which two differ says little, and says so.
    (unsure,) = against_all([Comparison(A, B, 1.0, "ann"), Comparison(A, B, 0.0, "bob")])
    assert "which may still be chance" in unsure


def test_a_win_rate_counts_ties_half_and_both_sides() -> None:
    votes = [
        Comparison(A, B, 1.0, "ann"),
        Comparison(B, A, 0.0, "bob"),
        Comparison(C, D, 0.5, "ann"),
        Comparison(D, C, 1.0, "bob"),
        Comparison(A, A, 1.0, "bob"),  # one maker: says nothing of two
    ]
    rate = win_rate(votes, "one", "other")
    assert rate.mean == 2.5 / 4 and rate.contains(0.5)
    back = win_rate(votes, "other", "one")
    assert (back.mean, back.low, back.high) == pytest.approx((1 - rate.mean, 1 - rate.high, 1 - rate.low))
    with pytest.raises(RequestError, match="No vote compares an image of 'one' with one of 'nobody'"):
        win_rate(votes, "one", "nobody")


def test_voters_who_cannot_tell_two_makers_apart_are_seen_to() -> None:
    images = fake_images(40, strengths={"old": 0.0, "same": 0.0, "new": 1.5})
    votes = fake_votes(images, count=1500)
    assert win_rate(votes, "same", "old").contains(0.5)
    assert win_rate(votes, "new", "old").low > 0.6


def test_makers_are_rated_by_their_images_votes() -> None:
    images = fake_images(40)
    votes = fake_votes(images, count=1500)
    ratings, reason = rate_makers(votes)
    by_name = dict(zip(ratings.names, ratings.values.tolist(), strict=True))
    assert reason == "" and by_name["weak"] + 0.5 < by_name["middle"] < by_name["strong"] - 0.5
    assert sorted(ratings.ranks()) == [1, 2, 3]
    always = [vote for vote in votes if vote.winner is not None and vote.winner.maker != "weak"]
    ratings, reason = rate_makers(always)
    assert "in every comparison with" in reason and abs(ratings.values).max().item() * ELO < 2000
    with pytest.raises(RequestError, match="infinite without a penalty"):
        rate_makers(always, alpha=0)
    with pytest.raises(RequestError, match="nothing to rate"):
        rate_makers([Comparison(A, A, 1.0, "ann")])
