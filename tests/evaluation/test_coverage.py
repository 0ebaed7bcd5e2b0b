"""What a 95 % interval promises: it holds the true mean in 95 of 100 sets of prompts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dipp_toolkit.evaluation.frechet import frechet_distance_of_gaussians
from dipp_toolkit.evaluation.intervals import mean_interval, paired_interval, share_interval
from dipp_toolkit.experiments.bench.statistics import mean_figure, metric_figures

SETS = 1000
Draw = Callable[[int, torch.Generator], torch.Tensor]


def normal(count: int, random: torch.Generator) -> torch.Tensor:
    """Scores of two noises a prompt: prompts differ more than noises do. The true mean is 1."""
    prompts = torch.randn(count, 1, generator=random, dtype=torch.float64)
    return 1 + prompts + 0.5 * torch.randn(count, 2, generator=random, dtype=torch.float64)


def skewed(count: int, random: torch.Generator) -> torch.Tensor:
    """Scores with a long tail, exponential of mean 1."""
    return -torch.rand(count, generator=random, dtype=torch.float64).clamp(min=1e-12).log()


def bounded(count: int, random: torch.Generator) -> torch.Tensor:
    """Shares crowded at 0, squares of uniform ones with the mean 1."""
    return 3 * torch.rand(count, generator=random, dtype=torch.float64).square()


def coin(count: int, random: torch.Generator) -> torch.Tensor:
    """Wins and losses, 0.7 of them wins."""
    return (torch.rand(count, generator=random) < 0.7).double()


@pytest.mark.parametrize("count", [8, 16, 64, 352])
@pytest.mark.parametrize("draw", [normal, skewed, bounded])
def test_the_interval_holds_the_true_mean_as_often_as_it_says(draw: Draw, count: int) -> None:
    """95 % give or take chance, with few prompts as with many, skewed or not."""
    random = torch.Generator().manual_seed(count)
    held = sum(mean_interval(draw(count, random)).contains(1.0) for _ in range(SETS)) / SETS
    assert 0.93 <= held <= 0.98


@pytest.mark.parametrize("count", [8, 16, 64, 352])
def test_the_interval_of_a_win_rate_covers_it_as_a_share_can(count: int) -> None:
    """The coverage of a share goes in steps with its value (Brown, Cai and DasGupta 2001), so the band is wider."""
    random = torch.Generator().manual_seed(2026)
    held = sum(share_interval(coin(count, random)).contains(0.7) for _ in range(SETS)) / SETS
    assert 0.93 <= held <= 0.985


@pytest.mark.parametrize("count", [8, 64])
def test_the_paired_interval_covers_the_true_change(count: int) -> None:
    random = torch.Generator().manual_seed(7)
    held = []
    for _ in range(SETS):
        before = normal(count, random)
        after = before + 0.2 + 0.3 * torch.randn(count, 2, generator=random, dtype=torch.float64)
        held.append(paired_interval(before, after).contains(0.2))
    assert 0.93 <= sum(held) / SETS <= 0.98


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


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_interval_of_a_set_number_covers_what_sets_of_that_size_give() -> None:
    """The truth here is the mean over sets of this size: finite sets bias a Frechet distance, and no resampling of one
    set can know by how much."""
    random = torch.Generator().manual_seed(5)
    shift = torch.tensor([1.0, 0.5, 0.0, 0.0], dtype=torch.float64)
    sets = [torch.randn(120, 1, 4, generator=random, dtype=torch.float64) * 1.2 + shift for _ in range(200)]
    truth = sum(Distance().values(item)["distance"] for item in sets) / len(sets)
    figures = [metric_figures("d", Distance(), item, [""] * 120, seed)["distance"] for seed, item in enumerate(sets)]
    held = [
        figure.low is not None and figure.high is not None and figure.low <= truth <= figure.high for figure in figures
    ]
    assert 0.90 <= sum(held) / len(held) <= 0.99
