"""Pairs are picked by what a vote says, once each, and the same history picks the same."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import norm

from dipp_toolkit.errors import RequestError
from dipp_toolkit.preferences.order_information import (
    VARIANCE,
    difference_information,
    order_information,
    order_worth,
)
from dipp_toolkit.preferences.pair import Candidate, Comparison, PictureFile
from dipp_toolkit.preferences.picking import PairPicker
from dipp_toolkit.preferences.rating_posterior import OWN, SHARED, RatingPosterior
from fake_votes import Grey, fake_images, rating

IMAGES = fake_images(5, 2)
PAIRS = 5 * 15


def answered(picker: PairPicker, count: int, voter: str = "ann") -> list[frozenset[int]]:
    """Picks that a voter without errors answers."""
    picks = []
    for _ in range(count):
        picked = picker.pick(voter)
        assert picked is not None
        first, second = (IMAGES[number] for number in picked)
        picks.append(frozenset(picked))
        picker.add(Comparison(first, second, float(rating(first) > rating(second)), voter))
    return picks


@pytest.mark.parametrize("way", ["adaptive", "random"])
def test_every_pair_of_a_prompt_is_asked_about_once_before_one_is_again(way: str) -> None:
    picker = PairPicker(IMAGES, seed=3, way=way)
    picks = answered(picker, PAIRS)
    expected = {frozenset((one.id, other.id)) for one, other in combinations(IMAGES, 2) if one.prompt == other.prompt}
    assert set(picks) == expected and len(picks) == len(expected) == PAIRS
    # Then another voter is asked about each once, before anybody is asked again.
    assert set(answered(picker, PAIRS, "bob")) == expected
    assert picker.pick("ann") is not None


@pytest.mark.parametrize("way", ["adaptive", "random"])
def test_the_seed_and_the_history_decide_every_pick(way: str) -> None:
    whole = PairPicker(IMAGES, seed=3, way=way)
    history: list[Comparison] = []
    for _ in range(30):
        picked = whole.pick("ann")
        assert picked is not None and picked == whole.pick("ann")
        assert PairPicker(IMAGES, history, seed=3, way=way).pick("ann") == picked
        comparison = Comparison(IMAGES[picked[0]], IMAGES[picked[1]], float(len(history) % 3 > 0), "ann")
        history.append(comparison)
        whole.add(comparison)
    assert answered(PairPicker(IMAGES, seed=4, way=way), 10) != answered(PairPicker(IMAGES, seed=5, way=way), 10)


def test_the_left_image_is_drawn() -> None:
    picks = [PairPicker(IMAGES, seed=seed).pick("ann") for seed in range(200)]
    assert 70 < sum(pick is not None and pick[0] < pick[1] for pick in picks) < 130


@pytest.mark.parametrize("way", ["adaptive", "random"])
def test_pairs_to_avoid_are_avoided(way: str) -> None:
    picker = PairPicker(IMAGES[:6], seed=1, way=way)
    avoid: set[frozenset[int]] = {frozenset((100, 0)), frozenset((0,))}
    for _ in range(15):
        picked = picker.pick("ann", avoid)
        assert picked is not None and frozenset(picked) not in avoid
        avoid.add(frozenset(picked))
    assert picker.pick("ann", avoid) is None
    assert PairPicker([]).pick("ann") is None and PairPicker(IMAGES[:1]).pick("ann") is None


def test_a_vote_that_is_repeated_says_nothing_new_and_a_strangers_image_is_left_out() -> None:
    picker = PairPicker(IMAGES)
    comparison = Comparison(IMAGES[0], IMAGES[3], 1.0, "ann")
    picker.add(comparison)
    before = picker.posterior.ratings
    picker.add(Comparison(IMAGES[3], IMAGES[0], 1.0, "ann", repeat=True))
    stranger = Candidate(999, IMAGES[0].prompt, "x", Grey(0.5))
    picker.add(Comparison(IMAGES[0], stranger, 1.0, "ann"))
    np.testing.assert_array_equal(picker.posterior.ratings, before)
    with pytest.raises(RequestError, match="two images of one prompt"):
        picker.add(Comparison(IMAGES[0], IMAGES[6], 1.0, "ann"))
    with pytest.raises(RequestError, match="adaptive or random, not 'best'"):
        PairPicker(IMAGES, way="best")
    with pytest.raises(RequestError, match="one id"):
        PairPicker([IMAGES[0], IMAGES[0]])


def test_votes_spread_over_the_prompts() -> None:
    for seed in range(5):
        counts = Counter(IMAGES[min(pick)].prompt for pick in answered(PairPicker(IMAGES, seed=seed), 25))
        assert min(counts.values()) >= 3 and max(counts.values()) <= 7, counts


def test_a_pair_that_is_clear_is_asked_about_last() -> None:
    images = [Candidate(number, "a prompt", f"maker {number}", Grey(0.5)) for number in range(3)]
    history = [Comparison(images[0], images[1], 1.0, f"voter {number}") for number in range(20)]
    history += [Comparison(images[1], images[2], 1.0, f"voter {number}") for number in range(20)]
    picker = PairPicker(images, history)
    # Nobody was asked about the ends, whose order follows from the others: of pairs that all were asked, those count.
    assert set(picker.pick("ann") or ()) == {0, 2}
    picker.add(Comparison(images[0], images[2], 1.0, "ann"))
    assert set(picker.pick("bob") or ()) != {0, 2}


def dense_posterior(images: list[Candidate], votes: list[tuple[int, int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Mode and covariance of all ratings from the whole prior at once."""
    makers = np.array([[one.maker == other.maker for other in images] for one in images], dtype=float)
    precision = np.linalg.inv(SHARED**2 * makers + OWN**2 * np.eye(len(images)))

    def value(ratings: np.ndarray) -> float:
        gaps = np.array([ratings[one] - ratings[other] for one, other, _ in votes])
        wins = np.array([outcome for *_, outcome in votes])
        loss = (wins * np.logaddexp(0, -gaps) + (1 - wins) * np.logaddexp(0, gaps)).sum()
        return float(loss + ratings @ precision @ ratings / 2)

    mode = minimize(value, np.zeros(len(images)), method="BFGS", options={"gtol": 1e-7}).x
    hessian = precision.copy()
    for one, other, _ in votes:
        likely = 1 / (1 + np.exp(mode[other] - mode[one]))
        direction = np.zeros(len(images))
        direction[[one, other]] = 1, -1
        hessian += likely * (1 - likely) * np.outer(direction, direction)
    return mode, np.linalg.inv(hessian)


def test_the_posterior_is_that_of_the_whole_prior_and_all_votes() -> None:
    images = [*fake_images(3, 2), *(Candidate(18 + number, "last", "weak", Grey(0.5)) for number in range(3))]
    random = np.random.default_rng(0)
    votes = []
    while len(votes) < 40:
        one, other = random.integers(len(images), size=2).tolist()
        if one != other and images[one].prompt == images[other].prompt:
            votes.append((one, other, float(random.choice([0, 0.5, 1]))))
    posterior = RatingPosterior([image.prompt for image in images], [image.maker for image in images])
    for vote in votes:
        posterior.add(*vote)
    mode, covariance = dense_posterior(images, votes)
    np.testing.assert_allclose(posterior.ratings, mode, atol=2e-5)
    for block in posterior.blocks:
        means, variances = posterior.differences(block)
        for row, index in enumerate(block.index):
            gaps = mode[index][:, None] - mode[index][None, :]
            inside = covariance[np.ix_(index, index)]
            spread = np.diag(inside)[:, None] + np.diag(inside)[None, :] - 2 * inside
            np.testing.assert_allclose(means[row], gaps, atol=4e-5)
            np.testing.assert_allclose(variances[row], spread, atol=2e-4)


def test_votes_on_some_prompts_say_something_of_the_makers_images_on_others() -> None:
    picker = PairPicker(IMAGES)
    for first in IMAGES[:24]:
        for second in IMAGES[:24]:
            if first.prompt == second.prompt and (first.maker, second.maker) == ("strong", "weak"):
                picker.add(Comparison(first, second, 1.0, "ann"))
    untouched = {image.maker: picker.posterior.ratings[image.id] for image in IMAGES[24:]}
    assert untouched["strong"] > 0.5 + untouched["middle"] > 0.5 + untouched["weak"]


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (0.7, 2.0), (-2.5, 0.3), (1.0, 30.0), (0.0, 1e-4)])
def test_information_is_the_integral_of_its_definition(mean: float, variance: float) -> None:
    def entropy(chance: float) -> float:
        return -sum(part * np.log2(part) for part in (chance, 1 - chance) if part > 0)

    reach = 12 * variance**0.5

    def integral(function, low: float, high: float) -> float:
        return quad(lambda d: function(d) * norm.pdf(d, mean, variance**0.5), low, high, epsabs=1e-12, limit=400)[0]

    def vote(gap: float) -> float:
        return float(norm.cdf(gap / VARIANCE**0.5))

    low, high = min(0.0, mean - reach), max(0.0, mean + reach)
    voted = integral(vote, low, 0) + integral(vote, 0, high)
    better = norm.cdf(mean / variance**0.5)
    both = integral(vote, 0, high)
    about_order = entropy(voted) - better * entropy(both / better)
    about_order -= (1 - better) * entropy((voted - both) / (1 - better))
    found = order_information(np.array([mean]), np.array([variance]))[0]
    assert found == pytest.approx(about_order, abs=1e-8)
    expected = integral(lambda gap: entropy(vote(gap)), low, 0) + integral(lambda gap: entropy(vote(gap)), 0, high)
    # Houlsby's closed form is an approximation by a Gaussian.
    assert difference_information(np.array([mean]), np.array([variance]))[0] == pytest.approx(
        entropy(voted) - expected, abs=0.01
    )
    worth = order_worth(np.array([mean]), np.array([variance]))[0]
    assert worth == pytest.approx(min(better, 1 - better) * about_order, abs=1e-8)


def test_adaptive_picks_order_the_images_with_fewer_votes() -> None:
    def agreement(way: str, seed: int, count: int) -> float:
        images = fake_images(12, 2, seed=seed)
        hidden = np.array([rating(image) for image in images])
        picker = PairPicker(images, seed=seed, way=way)
        random = np.random.default_rng([seed, 1])
        errs = random.random((len(images), len(images))) < 0.1
        for _ in range(count):
            picked = picker.pick("ann")
            assert picked is not None
            first, second = picked
            right = (hidden[first] > hidden[second]) != errs[min(picked), max(picked)]
            picker.add(Comparison(images[first], images[second], float(right), "ann"))
        ratings = picker.posterior.ratings
        pairs = [(a.id, b.id) for a, b in combinations(images, 2) if a.prompt == b.prompt]
        return float(np.mean([(ratings[a] > ratings[b]) == (hidden[a] > hidden[b]) for a, b in pairs]))

    # 180 pairs: what random picking has after 150, adaptive picking has after 70 % of them.
    adaptive = np.mean([agreement("adaptive", seed, 105) for seed in range(5)])
    assert adaptive >= np.mean([agreement("random", seed, 150) for seed in range(5)])
    assert adaptive > 0.05 + np.mean([agreement("random", seed, 60) for seed in range(5)])


@pytest.mark.parametrize(("prompts", "each"), [(100, 2), (30, 7), (200, 1)])
def test_a_pick_takes_no_time_that_a_page_would_feel(prompts: int, each: int) -> None:
    images = fake_images(prompts, each)
    picker = PairPicker(images)
    started = time.process_time()
    for _ in range(10):
        first, second = picker.pick("ann") or (0, 0)
        picker.add(Comparison(images[first], images[second], 1.0, "ann"))
    # Ten picks in what a single one may take: about 30 ms each with the checks of types that only tests have.
    assert time.process_time() - started < 3


def test_many_images_of_one_prompt_take_little_memory() -> None:
    count = 500
    images = [Candidate(number, "a fox", "maker", PictureFile(Path("x.png"))) for number in range(count)]
    tracemalloc.start()
    try:
        PairPicker(images)
        (_, peak) = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / (count * (count - 1) // 2) < 150  # bytes for each of 124,750 pairs
