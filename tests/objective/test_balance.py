"""Balancing gradients against its definitions, and against optima found another way."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from dipp_toolkit.objective.base import TermResult
from dipp_toolkit.objective.mixing.balance import Balance, mgda, pcgrad, unchanged
from dipp_toolkit.objective.mixing.floors import Floor
from dipp_toolkit.objective.mixing.mix import Mixed, RewardMix
from dipp_toolkit.objective.mixing.statistics import RewardStatistics


def gradients(rewards: int, batch: int = 6, dims: int = 5) -> Tensor:
    return torch.randn(rewards, batch, dims, generator=torch.Generator().manual_seed(rewards), dtype=torch.float64)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_pcgrad_of_two_takes_out_what_opposes_the_other() -> None:
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 1.0]])
    first, second = pcgrad(torch.stack([a, b]), seeded())
    torch.testing.assert_close(first, torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(second, torch.tensor([[0.0, 1.0]]))


def test_pcgrad_leaves_agreeing_gradients_alone() -> None:
    agreeing = gradients(3).abs()
    assert pcgrad(agreeing, seeded()) is not agreeing
    torch.testing.assert_close(pcgrad(agreeing, seeded()), agreeing)


def test_pcgrad_of_two_never_opposes_either() -> None:
    given = gradients(2)
    for permutation, other in itertools.permutations(range(2)):
        assert ((pcgrad(given, seeded())[permutation] * given[other]).sum(-1) >= -1e-12).all()


@pytest.mark.parametrize("rewards", [2, 3, 4])
def test_mgda_finds_the_least_norm(rewards: int) -> None:
    """Against scipy's constrained minimiser, for each sample by itself."""
    given = gradients(rewards)
    reached = mgda(given, seeded()).sum(0) / rewards
    for sample in range(given.shape[1]):
        rows = given[:, sample].numpy()
        found = minimize(
            lambda shares, rows=rows: ((shares @ rows) ** 2).sum(),
            [1 / rewards] * rewards,
            bounds=[(0, 1)] * rewards,
            constraints={"type": "eq", "fun": lambda shares: shares.sum() - 1},
            options={"ftol": 1e-14},
        )
        torch.testing.assert_close(reached[sample].square().sum().item(), found.fun, rtol=1e-4, atol=1e-6)


def test_mgda_improves_every_reward() -> None:
    given = gradients(2)
    direction = mgda(given, seeded()).sum(0) / 2
    least = direction.square().sum(-1)
    assert ((given * direction).sum(-1) >= least - 1e-9).all()


def test_mgda_of_equal_gradients_is_their_sum() -> None:
    one = gradients(1)
    same = torch.cat([one, one])
    torch.testing.assert_close(mgda(same, seeded()).sum(0), same.sum(0))


def test_the_sum_is_left_as_it_is() -> None:
    given = gradients(3)
    assert unchanged(given, seeded()) is given


def result_of(scores: list[float], grad: Tensor) -> TermResult:
    return TermResult(torch.tensor(scores), grad)


def mixed(mix: RewardMix, weight: float = 1.0, rest: Tensor | None = None, **results: TermResult) -> Mixed:
    """A mix of rewards that all have the same weight."""
    rest = torch.zeros_like(next(iter(results.values())).grad) if rest is None else rest
    return mix(results, dict.fromkeys(results, weight), rest, seeded())


def test_normalised_rewards_pull_by_their_weights_whatever_their_units() -> None:
    """A reward in other units, a thousand times larger, contributes the same."""
    grad = gradients(1)[0].float()
    found = mixed(
        RewardMix("normalised"), 2.0, small=result_of([0.0] * 6, grad), large=result_of([0.0] * 6, 1000 * grad)
    ).contributions
    torch.testing.assert_close(found["small"], found["large"])
    torch.testing.assert_close(found["small"].square().mean().sqrt(), torch.tensor(2.0))


def test_a_surrogate_that_was_silent_does_not_shout_when_it_is_trusted() -> None:
    """Gradients of 0 do not count as small ones."""
    mix, grad = RewardMix("normalised"), gradients(1)[0].float()
    for _ in range(9):
        mixed(mix, one=result_of([0.0] * 6, 0 * grad))
        mix.commit()
    found = mixed(mix, one=result_of([0.0] * 6, grad)).contributions["one"]
    torch.testing.assert_close(found.square().mean().sqrt(), torch.tensor(1.0))


def test_a_clip_limits_each_sample_and_says_how_many() -> None:
    grad = torch.ones(3, 4) * torch.tensor([[0.1], [1.0], [10.0]])
    found = mixed(RewardMix(clip=1.0), 2.0, one=result_of([0.0] * 3, grad))
    torch.testing.assert_close(found.added["one"][:, 0], torch.tensor([0.2, 1.0, 1.0]))
    assert found.details["clipped/one"] == pytest.approx(2 / 3)


def test_a_reward_without_gradient_does_not_stop_the_others() -> None:
    """The zero vector is the least norm of all: MGDA must not see it."""
    a, b = gradients(2).float()
    results = {name: result_of([0.0] * 6, grad) for name, grad in (("a", a), ("none", 0 * a), ("b", b))}
    added = mixed(RewardMix("mgda"), **results).added
    expected = mgda(torch.stack([a, b]), seeded())
    torch.testing.assert_close(added["a"], expected[0])
    torch.testing.assert_close(added["b"], expected[1])
    assert not added["none"].any()


@pytest.mark.parametrize("balance", ["sum", "normalised"])
def test_plain_balances_add_up(balance: Balance) -> None:
    a, b = gradients(2).float()
    found = mixed(RewardMix(balance), a=result_of([0.0] * 6, a), b=result_of([0.0] * 6, b))
    assert all(torch.equal(value, found.contributions[name]) for name, value in found.added.items())


def test_statistics_start_at_the_first_batch() -> None:
    statistics = RewardStatistics()
    statistics.update(torch.tensor([1.0, 3.0]), torch.tensor(4.0))
    found = [item.item() for item in (statistics.mean, statistics.deviation, statistics.gradient)]
    assert found == pytest.approx([2.0, 1.0, 4.0])


def test_statistics_take_no_bad_number_in() -> None:
    statistics = RewardStatistics()
    statistics.update(torch.tensor([1.0, 3.0]), torch.tensor(4.0))
    before = {name: value.clone() for name, value in statistics.state_dict().items()}
    statistics.update(torch.tensor([1.0, float("nan")]), torch.tensor(4.0))
    statistics.update(torch.tensor([1.0, 2.0]), torch.tensor(float("inf")))
    assert all(torch.equal(value, before[name]) for name, value in statistics.state_dict().items())


def test_statistics_forget() -> None:
    statistics = RewardStatistics()
    for score in [0.0] + [5.0] * 400:
        statistics.update(torch.tensor([score, score]), torch.zeros(()))
    assert statistics.mean == pytest.approx(5.0, abs=1e-2)
    assert statistics.deviation == 0


def test_a_floor_that_holds_pushes_nothing() -> None:
    floor = Floor(0.0)
    assert floor.update(torch.tensor([5.0, 5.1]), 1.0) == 0
    assert floor.integral == 0


def test_a_floor_counts_the_standard_error_against_the_reward() -> None:
    scores = torch.tensor([1.0, 3.0, 1.0, 3.0])  # mean 2, deviation 1, standard error 1/2
    floor = Floor(2.0, rate=0.1)
    assert floor.update(scores, 2.0) == pytest.approx(0.25 + 0.05)
    assert floor.violation == pytest.approx(0.5)


def test_a_floor_of_scores_that_are_all_equal_has_no_unit_to_push_in() -> None:
    assert Floor(10.0).update(torch.tensor([1.0, 1.0]), 0.0) == 0


@pytest.mark.parametrize("start", [0.0, 3.0])
def test_a_floor_settles_on_its_constraint(start: float) -> None:
    """A toy: the score is lambda - 2 + noise; the floor 1 needs the multiplier 3, wherever it starts."""
    random = seeded()
    floor, scores = Floor(1.0, integral=start), torch.tensor([0.0])
    multiplier, means = start, []
    for _ in range(600):
        scores = multiplier - 2 + 0.3 * torch.randn(64, generator=random)
        multiplier = 0.8 * multiplier + 0.2 * floor.update(scores, 1.0)  # a generator follows with a delay
        means.append(scores.mean().item())
    late = torch.tensor(means[300:])
    assert late.mean() == pytest.approx(1.0 + 2 * 0.3 / 8, abs=0.02)
    assert (late > 1.0).float().mean() > 0.9


def test_a_floor_pushes_as_hard_as_the_rest_pulls_times_its_multiplier() -> None:
    """Whatever the weights and units: here everything else has a root mean square of 7."""
    grad = torch.full((4, 3), 0.5)
    mix = RewardMix(floors={"one": Floor(10.0)})
    given = {"rest": torch.full((4, 3), -7.0), "one": result_of([1.0, 3.0, 1.0, 3.0], grad)}
    first = mixed(mix, 0.0, **given)
    assert first.details["multiplier/one"] == 0, "nothing has been seen before the first update"
    mix.commit()
    found = mixed(mix, 0.0, **given)
    multiplier = found.details["multiplier/one"]
    assert multiplier > 1
    torch.testing.assert_close(found.added["one"], torch.full((4, 3), 7.0 * multiplier))


def test_the_mix_goes_on_where_it_stopped() -> None:
    def steps(mix: RewardMix, count: int) -> list[Tensor]:
        given = [gradients(1)[0].float() * (k + 1) for k in range(count)]
        added = []
        for k, grad in enumerate(given):
            added.append(mixed(mix, rest=grad, one=result_of([float(k), *range(5)], grad)).added["one"])
            mix.commit()
        return added

    whole = RewardMix("normalised", floors={"one": Floor(9.0)})
    steps(whole, 3)
    resumed = RewardMix("normalised", floors={"one": Floor(9.0)})
    resumed.load_state_dict(whole.state_dict())
    for a, b in zip(steps(whole, 2), steps(resumed, 2), strict=True):
        assert torch.equal(a, b)


def multipliers(passes: int, updates: int = 12) -> list[float]:
    """Of a floor and of the scale of `normalised`, over updates of 32 samples in so many passes."""
    random, found = seeded(), []
    mix = RewardMix("normalised", floors={"one": Floor(2.0, rate=0.3)})
    for k in range(updates):
        scores, grad = torch.randn(32, generator=random).double() + 0.1 * k, gradients(1, batch=32)[0] * (k + 1)
        for part, slope in zip(scores.chunk(passes), grad.chunk(passes), strict=True):
            mixed_part = mixed(mix, rest=torch.ones_like(slope), one=TermResult(part, slope))
        found.append(float(mixed_part.details["multiplier/one"]))
        mix.commit()
    return found


def test_floors_and_statistics_move_once_an_update() -> None:
    """The same scores in 1, 8 and 32 passes."""
    whole = multipliers(1)
    assert whole[0] == 0 and max(whole) > 1
    for passes in (8, 32):
        assert multipliers(passes) == pytest.approx(whole, rel=1e-9)


def test_a_discarded_update_leaves_the_mix_as_it_was() -> None:
    grad = gradients(1)[0].float()
    mix = RewardMix("normalised", floors={"one": Floor(9.0)})
    mixed(mix, one=result_of([0.0, 1.0] * 3, grad))
    mix.commit()
    before = mix.state_dict()
    mixed(mix, one=result_of([5.0, 7.0] * 3, 100 * grad))
    assert mix.state_dict() == before, "what is proposed is in no checkpoint"
    mix.discard()
    mix.commit()
    assert mix.state_dict() == before


def test_updates_of_one_score_have_a_deviation_over_time() -> None:
    random, statistics = seeded(), RewardStatistics()
    for _ in range(400):
        statistics.update(3 + 2 * torch.randn(1, generator=random), torch.ones(()))
    assert 1.0 < statistics.deviation < 2.5
    mix = RewardMix(floors={"one": Floor(4.0)})
    for score in (1.0, 1.5, 0.5, 1.0):
        found = mixed(mix, 0.0, one=TermResult(torch.tensor([score]), torch.ones(1, 3)))
        mix.commit()
        assert found.details["multiplier/one"] < 20


@pytest.mark.parametrize("balance", ["sum", "normalised"])
def test_nothing_is_read_off_the_device_to_add_rewards_up(balance: Balance) -> None:
    """A tensor without numbers cannot be read: whoever tries fails."""
    grad = torch.ones(4, 3, device="meta")
    mix = RewardMix(balance)
    for _ in range(2):
        result = TermResult(torch.ones(4, device="meta"), grad)
        mix({"a": result, "b": result}, {"a": 1.0, "b": 2.0}, grad, torch.Generator())
        mix.discard()
