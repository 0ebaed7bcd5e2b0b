"""Intervals, diversity, Frechet distances and comparisons, against closed forms and synthetic data."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from dipp_toolkit.errors import CheckpointError, RequestError, RunError
from dipp_toolkit.evaluation import (
    Comparison,
    Interval,
    bootstrap_interval,
    frechet_distance,
    frechet_distance_of_gaussians,
    frechet_floor,
    mean_interval,
    measure,
    paired_interval,
    score,
    seed_diversity,
    share_interval,
)
from dipp_toolkit.evaluation.image_sheets import grid_shape
from dipp_toolkit.evaluation.intervals import effect_size, matters, ratio_interval


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Brightness:
    """Mean pixel; remembers the batches it saw."""

    differentiable = True

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        assert len(images) == len(prompts) and not torch.is_grad_enabled()
        self.batches.append(len(images))
        return images.mean((1, 2, 3))


class Returns:
    """A reward of somebody's, which returns what it likes."""

    differentiable = True

    def __init__(self, answer: Any):
        self.answer = answer

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Any:
        return self.answer


# Intervals ------------------------------------------------------------------------------------------------------------


def test_interval_width_is_the_standard_error() -> None:
    values = torch.randn(400, generator=random())
    found = mean_interval(values)
    assert found.mean == pytest.approx(values.mean().item(), abs=1e-6)
    expected = 2 * 1.96 * values.std().item() / math.sqrt(400)
    assert found.high - found.low == pytest.approx(expected, rel=0.06)
    narrower = mean_interval(values, level=0.5)
    assert narrower.high - narrower.low == pytest.approx(expected * 0.6745 / 1.96, rel=0.1)


def test_seeds_of_a_prompt_are_no_further_prompts() -> None:
    prompts = torch.randn(30, generator=random())
    repeated = prompts[:, None].expand(30, 8)
    assert mean_interval(repeated) == mean_interval(prompts)


def test_bootstrap_is_reproducible() -> None:
    """Rows that were made with it are checked by it."""
    values = torch.randn(50, generator=random())
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_the_interval_reaches_at_least_as_far_as_students_and_further_into_a_long_tail() -> None:
    values = torch.tensor([0.0, 0.1, 0.2, 0.1, 0.3, 0.2, 0.1, 4.0], dtype=torch.float64)
    expected = stats.ttest_1samp(values.numpy(), 0).confidence_interval(0.95)
    found = mean_interval(values)
    assert found.low == pytest.approx(expected.low)
    assert found.high - found.mean > 1.5 * (expected.high - found.mean)
    mirrored = mean_interval(-values)
    assert (mirrored.low, mirrored.high) == (pytest.approx(-found.high), pytest.approx(-found.low))
    even = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
    students = stats.ttest_1samp(even.numpy(), 0).confidence_interval(0.95)
    assert mean_interval(even).high == pytest.approx(students.high)
    two = stats.ttest_1samp([1.0, 2.0], 0).confidence_interval(0.95)
    assert mean_interval(torch.tensor([1.0, 2.0])).high == pytest.approx(two.high)


def test_the_ends_are_where_halls_cubic_gives_students_quantile() -> None:
    values = torch.rand(20, generator=random()).double().exp().square()
    count, lean = len(values), stats.skew(values.numpy(), bias=False) / math.sqrt(len(values))
    found = mean_interval(values)
    turned = (found.high - found.mean) / (values.std().item() / math.sqrt(count))
    cubic = -turned + lean * turned**2 / 3 - lean**2 * turned**3 / 27 + lean / 6
    assert cubic == pytest.approx(-stats.t.ppf(0.975, count - 1))


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -90.3])
def test_equal_values_are_a_point_and_say_nothing(value: float) -> None:
    found = mean_interval(torch.full((9, 2), value))
    assert found.low == found.mean == found.high


@pytest.mark.parametrize(("wins", "count"), [(0, 8), (8, 8), (3, 8), (250, 352)])
def test_the_interval_of_a_share_is_wilsons(wins: int, count: int) -> None:
    found = share_interval(torch.tensor([1.0] * wins + [0.0] * (count - wins)))
    expected = stats.binomtest(wins, count).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    with pytest.raises(ValueError, match="between 0 and 1"):
        share_interval(torch.tensor([0.5, 1.5]))


def test_the_size_of_a_difference_is_beside_the_spread_over_prompts() -> None:
    before = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    assert effect_size(before, before + 0.5) == pytest.approx(0.5 / before.std().item())
    # The same for every prompt: certain beyond doubt, and nothing that anybody could see.
    tiny = effect_size(before, before + 0.01)
    assert paired_interval(before, before + 0.01).low > 0.009 and not matters(tiny) and matters(-0.1)
    assert effect_size(before, before) == 0.0 and effect_size(torch.ones(1), torch.zeros(1)) == 0.0
    assert effect_size(torch.ones(4), torch.zeros(4)) == -math.inf


def test_paired_interval_is_narrower_and_right() -> None:
    before = 3 * torch.randn(60, generator=random())
    after = before + 0.4 + 0.2 * torch.randn(60, generator=random(1))
    paired = paired_interval(before, after)
    assert mean_interval(before).overlaps(mean_interval(after))
    assert paired.low > 0.3 and paired.high < 0.5
    assert paired.high - paired.low < 0.2 * (mean_interval(after).high - mean_interval(after).low)


def test_a_ratio_of_means_over_the_same_prompts_is_narrow_and_right() -> None:
    below = 1 + torch.rand(80, 2, generator=random()).double()
    above = 0.9 * below + 0.02 * torch.randn(80, 2, generator=random(1)).double()
    found = ratio_interval(above, below)
    assert found.mean == pytest.approx((above.mean() / below.mean()).item()) and found.low < 0.9 < found.high
    assert found.high - found.low < 0.02
    same = ratio_interval(below[:, 0], 2 * below[:, 0])
    assert (same.low, same.mean, same.high) == pytest.approx((0.5, 0.5, 0.5))
    # The truth is held as often as is said, over sets of prompts of a law whose ratio is known.
    draws = [random(seed) for seed in range(2, 402)]
    held = [
        ratio_interval(0.8 * hard + 0.1 * torch.randn(40, generator=draw).double(), hard).contains(0.8)
        for draw in draws
        for hard in [1 + torch.rand(40, generator=draw).double()]
    ]
    assert 0.92 < sum(held) / len(held) < 0.985
    with pytest.raises(ValueError, match="same prompts; got 3 and 4"):
        ratio_interval(torch.ones(3), torch.ones(4))
    with pytest.raises(ValueError, match="other than 0"):
        ratio_interval(torch.ones(3), torch.zeros(3))


def test_interval_refuses_what_has_no_mean() -> None:
    for values in (torch.zeros(0), torch.tensor([1.0, math.nan])):
        with pytest.raises(ValueError, match="interval needs"):
            mean_interval(values)
    with pytest.raises(ValueError, match="level"):
        mean_interval(torch.ones(3), level=95.0)


def test_one_prompt_is_a_point() -> None:
    assert mean_interval(torch.tensor([2.5])) == Interval(2.5, 2.5, 2.5)


def test_intervals_that_touch_overlap() -> None:
    first = Interval(0.0, -1.0, 1.0)
    assert first.overlaps(Interval(2.0, 1.0, 3.0)) and not first.overlaps(Interval(2.0, 1.01, 3.0))


# Diversity ------------------------------------------------------------------------------------------------------------


def test_diversity_by_hand() -> None:
    images = torch.zeros(2, 3, 3, 4, 4)
    images[0, 1] = 0.5  # pairs of the first prompt: 0.5, 0 and 0.5; of the second: 0, 1 and 1
    images[1, 2] = 1.0
    assert seed_diversity(images) == pytest.approx((1.0 / 3 + 2.0 / 3) / 2)
    assert seed_diversity(torch.rand(1, 1, 3, 4, 4).expand(5, 2, 3, 4, 4)) == 0


def test_diversity_needs_two_noises() -> None:
    with pytest.raises(RequestError, match="two noises"):
        seed_diversity(torch.zeros(4, 1, 3, 4, 4))


# Frechet distance -----------------------------------------------------------------------------------------------------


def spd(dimensions: int, seed: int) -> Tensor:
    root = torch.randn(dimensions, dimensions, generator=random(seed), dtype=torch.float64)
    return root @ root.T / dimensions + 0.1 * torch.eye(dimensions)


def test_frechet_of_commuting_gaussians_is_closed_form() -> None:
    vectors, _ = torch.linalg.qr(torch.randn(6, 6, generator=random(), dtype=torch.float64))
    a, b = torch.rand(6, dtype=torch.float64) + 0.1, torch.rand(6, dtype=torch.float64) + 0.1
    shift = torch.arange(6, dtype=torch.float64)
    found = frechet_distance_of_gaussians(
        torch.zeros(6), vectors @ torch.diag(a) @ vectors.T, shift, vectors @ torch.diag(b) @ vectors.T
    )
    assert found == pytest.approx((shift.square().sum() + (a.sqrt() - b.sqrt()).square().sum()).item(), rel=1e-10)


def test_frechet_agrees_with_the_general_square_root() -> None:
    from scipy.linalg import sqrtm

    first, second = spd(5, 1), spd(5, 2)
    cross = sqrtm((first @ second).numpy()).real.trace()
    expected = (first.trace() + second.trace()).item() - 2 * cross
    mean = torch.zeros(5)
    assert frechet_distance_of_gaussians(mean, first, mean, second) == pytest.approx(expected, rel=1e-8)


def test_frechet_of_samples_approaches_that_of_their_laws() -> None:
    first, second = spd(4, 1), spd(4, 2)
    a = torch.randn(40_000, 4, generator=random(5), dtype=torch.float64) @ torch.linalg.cholesky(first).T
    b = torch.randn(40_000, 4, generator=random(6), dtype=torch.float64) @ torch.linalg.cholesky(second).T + 0.5
    expected = frechet_distance_of_gaussians(torch.zeros(4), first, torch.full((4,), 0.5), second)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=0.03)


def test_frechet_with_more_dimensions_than_images() -> None:
    features = torch.randn(10, 50, generator=random())
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(features, features + 2) == pytest.approx(50 * 4, rel=1e-5)


def test_frechet_floor_falls_with_more_images() -> None:
    features = torch.randn(2000, 8, generator=random())
    small, large = frechet_floor(features[:100]), frechet_floor(features)
    assert small > 5 * large > 0
    assert frechet_floor(features, seed=1) == frechet_floor(features, seed=1) != frechet_floor(features, seed=2)


def test_frechet_refuses_what_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="finite"):
        frechet_distance(torch.full((3, 3), math.nan), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="four"):
        frechet_floor(torch.zeros(3, 3))


# Comparison -----------------------------------------------------------------------------------------------------------


def make_comparison(prompts: int = 5, seeds: int = 2, size: tuple[int, int] = (8, 6)) -> Comparison:
    images = {
        "before": 0.5 * torch.rand(prompts, seeds, 3, *size, generator=random()),
        "after": 0.5 + 0.5 * torch.rand(prompts, seeds, 3, *size, generator=random(1)),
    }
    return Comparison([f"prompt {index}" for index in range(prompts)], list(range(seeds)), images)


@pytest.mark.parametrize("prompts", [1, 5, 7])
@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_comparison_comes_back_to_eight_bits(tmp_path: Path, prompts: int, seeds: int) -> None:
    comparison = make_comparison(prompts, seeds)
    comparison.save(tmp_path / "comparison")
    loaded = Comparison.load(tmp_path / "comparison")
    assert list(loaded.prompts) == list(comparison.prompts) and list(loaded.seeds) == list(comparison.seeds)
    assert list(loaded.images) == ["before", "after"]
    for name, images in comparison.images.items():
        assert torch.equal(loaded.images[name], images.mul(255).round() / 255)
    loaded.save(tmp_path / "again")
    again = Comparison.load(tmp_path / "again")
    assert all(torch.equal(again.images[name], loaded.images[name]) for name in loaded.images)


def test_large_comparisons_span_several_sheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dipp_toolkit.evaluation.image_sheets.LARGEST_SIDE", 20)
    comparison = make_comparison(11, 2)
    comparison.save(tmp_path)
    assert len(list(tmp_path.glob("before-*.png"))) > 1
    loaded = Comparison.load(tmp_path)
    assert torch.equal(loaded.images["after"], comparison.images["after"].mul(255).round() / 255)


def test_sheets_keep_the_noises_of_a_prompt_in_a_row() -> None:
    assert grid_shape(128, 2, 64, 64)[1] % 2 == 0
    assert grid_shape(6, 3, 5000, 5000) == (1, 1)


def test_damaged_comparisons_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"comparison\.json is missing"):
        Comparison.load(tmp_path)
    make_comparison().save(tmp_path)
    index = json.loads((tmp_path / "comparison.json").read_text())
    (tmp_path / "comparison.json").write_text(json.dumps(index | {"height": 7}))
    with pytest.raises(CheckpointError, match="damaged"):
        Comparison.load(tmp_path)
    for part in ({"prompts": [1] * 2}, {"prompts": 7}, {"seeds": []}, {"columns": []}, {"columns": {"after": 7}}):
        (tmp_path / "comparison.json").write_text(json.dumps(index | part))
        with pytest.raises(CheckpointError, match="damaged"):
            Comparison.load(tmp_path)
    (tmp_path / "comparison.json").write_text(json.dumps(index))
    (tmp_path / "after-000.png").write_bytes(b"no picture")
    with pytest.raises(CheckpointError, match="damaged"):
        Comparison.load(tmp_path)
    (tmp_path / "after-000.png").unlink()
    with pytest.raises(CheckpointError, match=r"after-000\.png is missing"):
        Comparison.load(tmp_path)


def test_comparison_checks_its_images() -> None:
    with pytest.raises(ValueError, match="expected"):
        Comparison(["a"], [0, 1], {"before": torch.zeros(1, 1, 3, 4, 4)})
    with pytest.raises(ValueError, match="one size"):
        Comparison(["a"], [0], {"before": torch.zeros(1, 1, 3, 4, 4), "after": torch.zeros(1, 1, 3, 8, 8)})
    with pytest.raises(ValueError, match="letters"):
        Comparison(["a"], [0], {"../before": torch.zeros(1, 1, 3, 4, 4)})


def test_measure_gives_the_summary_parts() -> None:
    comparison = make_comparison(9, 2)
    reward, judge = Brightness(), Brightness()
    found = measure(comparison, {"bright": reward}, ("judge", judge), batch=4)
    assert reward.batches == [4, 4, 4, 4, 2] * 2 and judge.batches == reward.batches
    per_prompt = {name: images.mean((1, 2, 3, 4)) for name, images in comparison.images.items()}
    for name, values in per_prompt.items():
        one = found["rewards"]["bright"][name]
        assert one["mean"] == pytest.approx(values.mean().item(), abs=1e-6) and one["low"] < one["mean"] < one["high"]
    assert found["judge"] == {"name": "judge", **found["rewards"]["bright"]}
    assert found["gain"]["bright"]["mean"] == pytest.approx(
        (per_prompt["after"] - per_prompt["before"]).mean().item(), abs=1e-6
    )
    assert set(found["gain"]) == {"bright", "judge"}
    assert found["diversity"]["before"] == pytest.approx(seed_diversity(comparison.images["before"]))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_measure_without_before_judge_or_second_noise() -> None:
    comparison = Comparison(["a", "b"], [0], {"after": torch.rand(2, 1, 3, 4, 4)})
    found = measure(comparison, {})
    assert found == {"rewards": {}, "judge": None, "diversity": {}, "gain": {}}
    assert measure(comparison, {"bright": Brightness()})["gain"] == {}


def test_bad_scores_are_sentences() -> None:
    images, prompts = torch.rand(3, 3, 4, 4), ["a"] * 3
    with pytest.raises(RunError, match=r"'r' returned a tensor of shape \(3, 1\)"):
        score(Returns(torch.zeros(3, 1)), images, prompts, name="r")
    with pytest.raises(RunError, match="returned a list"):
        score(Returns(["good"] * 3), images, prompts)
    with pytest.raises(RunError, match="not finite"):
        score(Returns(torch.full((3,), math.nan)), images, prompts)
