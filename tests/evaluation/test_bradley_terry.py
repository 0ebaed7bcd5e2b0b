"""Bradley-Terry ratings are those of `choix`, their intervals hold the truth, and infinite ones are told."""

from __future__ import annotations

import math

import choix
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dipp_toolkit.errors import RequestError
from dipp_toolkit.evaluation.bradley_terry import ELO, PairVotes, apart, bradley_terry, rate
from dipp_toolkit.evaluation.intervals import clustered_share_interval, share_interval

ITEMS = 7


def drawn_votes(count: int, seed: int, items: int = ITEMS, prompts: int = 10, ties: float = 0.2) -> PairVotes:
    """Logistic votes with ties at random."""
    random = np.random.default_rng(seed)
    ratings = random.normal(size=items)
    first = random.integers(items, size=count)
    second = (first + random.integers(1, items, size=count)) % items
    wins = random.random(count) < 1 / (1 + np.exp(ratings[second] - ratings[first]))
    outcomes = np.where(random.random(count) < ties, 0.5, wins)
    return PairVotes(
        [f"item {number}" for number in range(items)],
        torch.from_numpy(first),
        torch.from_numpy(second),
        torch.from_numpy(outcomes),
        torch.from_numpy(random.integers(prompts, size=count)),
    )


def twice(votes: PairVotes) -> list[tuple[int, int]]:
    """Every vote as two of `choix`'s: winner before loser, and of a tie one of each."""
    pairs = []
    for first, second, outcome in zip(
        votes.first.tolist(), votes.second.tolist(), votes.outcomes.tolist(), strict=True
    ):
        pairs += [(first, second)] * round(2 * outcome) + [(second, first)] * round(2 - 2 * outcome)
    return pairs


@pytest.mark.parametrize("alpha", [0.0, 1e-4, 0.05, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_ratings_are_those_of_choix(alpha: float, seed: int) -> None:
    votes = drawn_votes(300, seed)
    assert apart(votes.wins(), votes.names) == ""
    # Twice the votes and twice the penalty have the same optimum.
    expected = choix.opt_pairwise(ITEMS, twice(votes), alpha=2 * alpha, method="Newton-CG", tol=1e-12)
    found = bradley_terry(votes.wins(), alpha)
    np.testing.assert_allclose(found.numpy(), expected - expected.mean(), rtol=0, atol=1e-6)
    assert found.mean().item() == pytest.approx(0, abs=1e-12)


def test_without_a_penalty_they_are_those_of_its_spectral_method_on_the_counts() -> None:
    wins = drawn_votes(400, 5).wins()
    expected = choix.ilsr_pairwise_dense(wins.numpy(), alpha=0.0, tol=1e-12, max_iter=1000)
    np.testing.assert_allclose(bradley_terry(wins).numpy(), expected - expected.mean(), rtol=0, atol=1e-6)


def test_two_items_have_the_log_odds_of_their_wins() -> None:
    ratings = bradley_terry(torch.tensor([[0.0, 30.5], [10.5, 0.0]]))
    assert (ratings[0] - ratings[1]).item() == pytest.approx(math.log(30.5 / 10.5), abs=1e-9)
    assert pytest.approx(400) == ELO * math.log(10)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(0, 2**31), st.integers(1, 40))
def test_the_penalised_ratings_are_where_the_slope_is_0(items: int, seed: int, count: int) -> None:
    votes = drawn_votes(count, seed, items)
    wins, alpha = votes.wins(), 0.05
    ratings = bradley_terry(wins, alpha)
    likely = torch.sigmoid(ratings[:, None] - ratings[None, :])
    slope = ((wins + wins.T) * likely - wins).sum(1) + 2 * alpha * ratings
    assert slope.abs().max().item() < 1e-6 * count


def test_infinite_ratings_are_told_and_not_given() -> None:
    names = ["ann", "bob", "cyd"]
    always = torch.tensor([[0.0, 5, 5], [0, 0, 2], [0, 3, 0]])
    assert apart(always, names) == (
        "ann was preferred in every comparison with the others, which says who is better and not by how much."
    )
    parts = torch.tensor([[0.0, 5, 0], [2, 0, 0], [0, 0, 0]])
    assert apart(parts, names).endswith("how far apart they are: ann, bob; cyd.")
    for wins in (always, parts):
        with pytest.raises(RequestError, match="infinite without a penalty"):
            bradley_terry(wins)
        assert torch.isfinite(bradley_terry(wins, 0.05)).all()
    # A tie is half a win: it links.
    assert apart(torch.tensor([[0.0, 5.5], [0.5, 0.0]]), names[:2]) == ""


def test_wins_that_are_no_counts_are_refused() -> None:
    for wrong in (torch.tensor([[0.0, -1.0], [1.0, 0.0]]), torch.tensor([[0.0, math.nan], [1.0, 0.0]])):
        with pytest.raises(ValueError, match="square matrix of finite numbers"):
            bradley_terry(wrong, 0.1)
    with pytest.raises(ValueError, match="0 or more"):
        bradley_terry(torch.ones(2, 2), -1.0)


def test_linearised_values_are_what_leaving_a_prompt_out_changes() -> None:
    votes = drawn_votes(4000, 1, items=4, prompts=40)
    whole = rate(votes, alpha=0.05)
    torch.testing.assert_close(whole.linearised.mean(0), whole.values)
    for prompt in (0, 7):
        kept = votes.prompts != prompt
        left = PairVotes(votes.names, votes.first[kept], votes.second[kept], votes.outcomes[kept], votes.prompts[kept])
        moved = whole.values - bradley_terry(left.wins(), 0.05 * 39 / 40)
        torch.testing.assert_close((whole.linearised[prompt] - whole.values) / 40, moved, atol=3e-4, rtol=0.1)


def test_ranks_are_by_what_the_votes_tell_apart() -> None:
    random = np.random.default_rng(0)
    strength = np.array([2.0, 2.0, 0.0])
    first = random.integers(3, size=1500)
    second = (first + random.integers(1, 3, size=1500)) % 3
    wins = random.random(1500) < 1 / (1 + np.exp(strength[second] - strength[first]))
    votes = PairVotes(
        ["a", "b", "c"],
        *map(torch.from_numpy, (first, second, wins.astype(float), random.integers(30, size=1500))),
    )
    ratings = rate(votes)
    assert ratings.ranks() == [1, 1, 3]
    gap = ratings.difference(0, 2)
    assert gap.contains(ELO * 2) and gap.low > 0
    assert ratings.interval(0).mean == pytest.approx(ELO * ratings.values[0].item())


def test_one_prompt_gives_points_and_no_vote_is_refused() -> None:
    votes = drawn_votes(50, 2, prompts=1)
    interval = rate(votes).interval(0)
    assert interval.low == interval.high
    none = PairVotes([], *(torch.zeros(0, dtype=torch.long),) * 2, torch.zeros(0), torch.zeros(0, dtype=torch.long))
    with pytest.raises(RequestError, match="no vote to rate by"):
        rate(none)


def test_a_share_of_votes_counts_prompts_and_not_votes() -> None:
    # Voters of one prompt all say the same: a hundred votes each are no more than one.
    won = torch.tensor([1.0, 0, 1, 1, 0, 1, 1, 0])
    few, many = (clustered_share_interval(times * won, torch.full((8,), float(times))) for times in (1, 100))
    assert (few.low, few.high) == pytest.approx((many.low, many.high), abs=1e-9)
    # Prompts that do not matter: as many votes count as there are, and the interval is narrow.
    random = torch.Generator().manual_seed(0)
    alike = torch.distributions.Binomial(200, torch.tensor(0.7))
    torch.manual_seed(0)
    narrow = clustered_share_interval(alike.sample((30,)), torch.full((30,), 200.0))
    assert narrow.high - narrow.low < 0.04 and narrow.contains(narrow.mean)
    assert random.initial_seed() == 0


def test_a_share_of_votes_has_a_width_at_its_ends_and_weighs_prompts_by_their_votes() -> None:
    every = clustered_share_interval(torch.tensor([3.0, 2, 4]), torch.tensor([3.0, 2, 4]))
    assert every == share_interval(torch.ones(3)) and every.low < 0.7
    assert clustered_share_interval(torch.tensor([1.0, 0]), torch.tensor([9.0, 1])).mean == 0.1
    one = clustered_share_interval(torch.tensor([4.0, 0]), torch.tensor([5.0, 0]))
    assert one.low < 0.5 < one.high
    for won, asked in (([2.0], [1.0]), ([0.0], [0.0]), ([-1.0], [2.0])):
        with pytest.raises(ValueError, match="A share of votes"):
            clustered_share_interval(torch.tensor(won), torch.tensor(asked))
