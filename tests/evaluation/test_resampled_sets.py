"""Numbers of a whole set whose prompts are drawn again and again, from distances and kernels that are taken once."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.evaluation import mmd, precision_recall
from dipp_toolkit.evaluation.frechet import ReferenceFrechet
from dipp_toolkit.evaluation.intervals import student_quantile
from dipp_toolkit.experiments.bench.statistics import metric_figures


def drawn(seed: int, images: int, resamples: int = 12) -> tuple[Tensor, Tensor]:
    """Draws with replacement, and how often each has each image."""
    random = torch.Generator().manual_seed(seed)
    draws = torch.randint(images, (resamples, images), generator=random)
    return draws, torch.stack([draw.bincount(minlength=images) for draw in draws]).double()


def features(seed: int, images: int, dimensions: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(images, dimensions, generator=random, dtype=torch.float64)


@pytest.mark.parametrize("block", [7, 16_000_000], ids=["blocks", "whole"])
def test_kernels_taken_once_give_the_discrepancy_of_each_draw(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """An image that is drawn twice is a pair with its copy, whose kernel is 1."""
    made, real = features(0, 41, 6), features(1, 30, 6)
    monkeypatch.setattr(mmd, "KERNELS_AT_ONCE", block * len(real) if block < 100 else block)
    draws, counts = drawn(2, len(made))
    expected = [mmd.gaussian_mmd(made[draw], real, sigma=2.0) for draw in draws]
    assert mmd.resampled_mmd(made, real, counts, sigma=2.0).tolist() == pytest.approx(expected, abs=1e-12, rel=1e-9)


@pytest.mark.parametrize("block", [7, 16_000_000], ids=["blocks", "whole"])
@pytest.mark.parametrize("k", [1, 3])
def test_distances_taken_once_give_recall_and_coverage_of_each_draw(
    monkeypatch: pytest.MonkeyPatch, k: int, block: int
) -> None:
    made, real = features(0, 45, 3), features(1, 60, 3)
    made[10:14] = made[9]  # equal images besides drawn copies
    monkeypatch.setattr(precision_recall, "DISTANCES_AT_ONCE", block * len(made) if block < 100 else block)
    draws, counts = drawn(3, len(made))
    expected = [precision_recall.neighbourhood(real, made[draw], k) for draw in draws]
    recall, coverage = precision_recall.resampled_neighbourhood(real, made, counts, k)
    assert recall.tolist() == [one.recall for one in expected]
    assert coverage.tolist() == [one.coverage for one in expected]
    assert recall.std() > 0 and coverage.std() > 0


def test_a_draw_of_few_different_images_looks_beyond_the_nearest() -> None:
    made, real = features(0, 200, 2), features(1, 80, 2)
    counts = torch.zeros(1, 200, dtype=torch.float64)
    counts[0, [3, 90, 150, 199]] = 50
    draw = torch.arange(200).repeat_interleave(counts[0].long())
    expected = precision_recall.neighbourhood(real, made[draw], 60)
    recall, coverage = precision_recall.resampled_neighbourhood(real, made, counts, 60)
    assert (recall.item(), coverage.item()) == (expected.recall, expected.coverage)
    with pytest.raises(RequestError, match="5 neighbours need at least 6 images; there are 4"):
        precision_recall.resampled_neighbourhood(real, made[:4], counts[:, :4], 5)


@pytest.mark.parametrize(("prompts", "seeds"), [(60, 1), (30, 2), (9, 1)], ids=["images", "prompts", "few"])
def test_the_frechet_error_is_the_length_of_the_derivative_by_the_weights(prompts: int, seeds: int) -> None:
    """With weights of prompts in place of counts the distance is a smooth function, and its gradient the influence."""
    dimensions = 12
    made, real = 1.3 * features(0, prompts * seeds, dimensions) + 0.4, features(1, 50, dimensions)
    reference = ReferenceFrechet(real)
    count = len(made)

    def distance(weights: Tensor) -> Tensor:
        each = weights.repeat_interleave(seeds) / (weights.sum() * seeds)
        mean = each @ made
        # By the root of the weights, so that the range, and not a covariance without one, is what is decomposed.
        rows = (each * count / (count - 1)).sqrt()[:, None] * (made - mean)
        cross = torch.linalg.svdvals(rows @ reference.factor)
        rank = min(count - 1, dimensions)
        return (mean - reference.mean).square().sum() + rows.square().sum() - 2 * cross[:rank].sum()

    gradient = torch.autograd.functional.jacobian(distance, torch.ones(prompts, dtype=torch.float64))
    error = reference.standard_error(made.reshape(prompts, seeds, dimensions))
    assert error == pytest.approx(gradient.norm().item(), rel=1e-6)


def test_the_frechet_error_is_how_far_distances_of_sets_vary() -> None:
    """Also where images are as many as dimensions, where draws with replacement spread half as wide again."""
    random = torch.Generator().manual_seed(4)
    dimensions = 8
    reference = ReferenceFrechet(torch.randn(200, dimensions, generator=random, dtype=torch.float64))
    for count in (8, 16, 128):
        sets = [
            1.2 * torch.randn(count, 1, dimensions, generator=random, dtype=torch.float64) + 0.3 for _ in range(150)
        ]
        spread = torch.tensor([reference.distance(one.flatten(0, 1)) for one in sets]).std().item()
        errors = torch.tensor([reference.standard_error(one) for one in sets])
        assert 0.8 < errors.mean().item() / spread < 1.35


def test_a_ratio_of_distances_has_the_error_with_which_ratios_vary() -> None:
    """What makes a prompt hard for both sets cancels: as narrow as ratios are, narrower than two distances allow."""
    random = torch.Generator().manual_seed(5)
    prompts, dimensions = 100, 4
    reference = ReferenceFrechet(torch.randn(300, dimensions, generator=random, dtype=torch.float64))
    ratios, reaches, apart = [], [], []
    for _ in range(150):
        hard = torch.randn(prompts, 1, dimensions, generator=random, dtype=torch.float64)
        noise = 0.3 * torch.randn(2, prompts, 1, dimensions, generator=random, dtype=torch.float64)
        one, other = 1.3 * hard + noise[0] + 0.6, 1.3 * hard + noise[1] + 0.5
        found = reference.ratio(one, other)
        ratios.append(math.log(found.mean))
        reaches.append(math.log(found.high / found.mean) / student_quantile(0.95, prompts))
        errors = [reference.standard_error(rows) / reference.distance(rows.flatten(0, 1)) for rows in (one, other)]
        apart.append(math.hypot(*errors))
    spread = torch.tensor(ratios).std().item()
    assert 0.85 < sum(reaches) / len(reaches) / spread < 1.25
    assert 1.5 * spread < sum(apart) / len(apart)


def test_ratios_of_distances_are_inverse_and_refuse_what_has_none() -> None:
    reference, one, other = (
        ReferenceFrechet(features(0, 40, 3)),
        features(1, 20, 3)[:, None],
        features(2, 20, 3)[:, None],
    )
    same, there, back = (reference.ratio(a, b) for a, b in ((one, one), (one, other), (other, one)))
    assert same.mean == same.low == same.high == 1
    assert there.mean == pytest.approx(1 / back.mean) and there.low == pytest.approx(1 / back.high)
    assert there.low < there.mean < there.high
    with pytest.raises(RequestError, match="same prompts, at least two; got 20 prompts and 19"):
        reference.ratio(one, other[:19])
    constant = ReferenceFrechet(torch.ones(4, 2))
    with pytest.raises(RequestError, match="both above 0"):
        constant.ratio(torch.ones(4, 1, 2), features(1, 4, 2)[:, None])


def test_equal_images_have_no_frechet_error() -> None:
    reference = ReferenceFrechet(features(0, 20, 4))
    assert reference.standard_error(torch.ones(10, 2, 4)) == 0
    assert math.isfinite(reference.standard_error(features(1, 2, 4)[:, None]))
    with pytest.raises(RequestError, match="4 features an image; got 3"):
        reference.standard_error(torch.rand(5, 1, 3))


class Plain:
    """The discrepancy to standard normal features, without a way of its own to errors."""

    better = {"mmd": "lower"}  # noqa: RUF012
    real = features(9, 30, 4)

    def features(self, images: Tensor, prompts: list[str]) -> Tensor:
        return images

    def values(self, rows: Tensor) -> dict[str, float]:
        return {"mmd": mmd.gaussian_mmd(rows.flatten(0, 1), self.real, 1.5)}


class Quick(Plain):
    """The same with one."""

    def standard_errors(self, rows: Tensor, counts: Tensor) -> dict[str, float]:
        assert counts.shape == (200, len(rows)) and (counts.sum(1) == len(rows)).all()
        each = counts.repeat_interleave(rows.shape[1], dim=1)
        return {"mmd": mmd.resampled_mmd(rows.flatten(0, 1), self.real, each, 1.5).std().item()}


def test_a_metric_with_errors_of_its_own_is_given_the_same_draws() -> None:
    made = features(5, 24, 4).reshape(12, 2, 4)
    plain, quick = (metric_figures("m", metric, made, [""] * 12)["mmd"] for metric in (Plain(), Quick()))
    assert quick.mean == plain.mean and plain.low is not None and plain.high is not None
    assert (quick.low, quick.high) == pytest.approx((plain.low, plain.high), rel=1e-9)
