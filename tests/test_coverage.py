"""What a 95 % interval promises: it holds the true mean in 95 of 100 sets of prompts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dipp_toolkit.bench.figures import mean_figure, metric_figures
from dipp_toolkit.evaluation.frechet import frechet_distance_of_gaussians
from dipp_toolkit.evaluation.intervals import bootstrap_interval, paired_interval

SETS = 1000
Draw = Callable[[torch.Generator], torch.Tensor]


def normal(random: torch.Generator) -> torch.Tensor:
    """Scores of 100 prompts with two noises each: prompts differ more than noises do. The true mean is 0.3."""
    prompts = torch.randn(100, 1, generator=random, dtype=torch.float64)
    return 0.3 + prompts + 0.5 * torch.randn(100, 2, generator=random, dtype=torch.float64)


def skewed(random: torch.Generator) -> torch.Tensor:
    """Scores with a long tail, exponential of mean 1, of 200 prompts."""
    return -torch.rand(200, generator=random, dtype=torch.float64).clamp(min=1e-12).log()


def coin(random: torch.Generator) -> torch.Tensor:
    """Wins and losses on 150 prompts, 0.7 of them wins."""
    return (torch.rand(150, generator=random) < 0.7).double()


@pytest.mark.slow
@pytest.mark.parametrize(("draw", "truth"), [(normal, 0.3), (skewed, 1.0)])
def test_the_interval_covers_the_true_mean_in_93_to_97_of_100_sets(draw: Draw, truth: float) -> None:
    random = torch.Generator().manual_seed(2026)
    held = [bootstrap_interval(draw(random), seed).contains(truth) for seed in range(SETS)]
    assert 0.93 <= sum(held) / SETS <= 0.97


@pytest.mark.slow
def test_the_interval_of_a_win_rate_covers_it_as_a_share_can() -> None:
    """The coverage of a share goes in steps with its value (Brown, Cai and DasGupta 2001), so the band is wider."""
    random = torch.Generator().manual_seed(2026)
    held = [bootstrap_interval(coin(random), seed).contains(0.7) for seed in range(SETS)]
    assert 0.92 <= sum(held) / SETS <= 0.98


@pytest.mark.slow
def test_the_paired_interval_covers_the_true_change() -> None:
    random = torch.Generator().manual_seed(7)
    held = []
    for seed in range(SETS):
        before = normal(random)
        after = before + 0.2 + 0.3 * torch.randn(100, 2, generator=random, dtype=torch.float64)
        held.append(paired_interval(before, after, seed).contains(0.2))
    assert 0.93 <= sum(held) / SETS <= 0.97


def test_prompts_and_not_images_are_what_is_drawn() -> None:
    """Ten noises of ten prompts are ten things to draw and not a hundred: the interval must not shrink with noises."""
    random = torch.Generator().manual_seed(3)
    prompts = torch.randn(40, 1, generator=random, dtype=torch.float64)
    few = mean_figure(prompts.expand(40, 1), [""] * 40, "reward", "higher")
    many = mean_figure(prompts.expand(40, 10), [""] * 40, "reward", "higher")
    assert (few.low, few.high) == (many.low, many.high)


class Distance:
    """Squared Frechet distance to the standard normal distribution, under a Gaussian fit."""

    better = {"distance": "lower"}  # noqa: RUF012

    def features(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return images

    def values(self, features: torch.Tensor) -> dict[str, float]:
        rows = features.flatten(0, 1).double()
        centred = rows - rows.mean(0)
        covariance = centred.T @ centred / (len(rows) - 1)
        unit = torch.eye(rows.shape[1], dtype=torch.float64)
        return {
            "distance": frechet_distance_of_gaussians(rows.mean(0), covariance, torch.zeros(len(unit)).double(), unit)
        }


@pytest.mark.slow
def test_the_interval_of_a_set_number_covers_what_sets_of_that_size_give() -> None:
    """The truth here is the mean over sets of this size: finite sets bias a Frechet distance, and no resampling of one
    set can know by how much."""
    random = torch.Generator().manual_seed(5)
    shift = torch.tensor([1.0, 0.5, 0.0, 0.0], dtype=torch.float64)
    sets = [torch.randn(120, 1, 4, generator=random, dtype=torch.float64) * 1.2 + shift for _ in range(200)]
    truth = sum(Distance().values(one)["distance"] for one in sets) / len(sets)
    figures = [metric_figures("d", Distance(), one, [""] * 120, seed)["distance"] for seed, one in enumerate(sets)]
    held = [one.low is not None and one.high is not None and one.low <= truth <= one.high for one in figures]
    assert 0.90 <= sum(held) / len(held) <= 0.99
