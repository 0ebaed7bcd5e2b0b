"""Gradients of black boxes: right in the mean where that is known, honest about what they do not know, resumable."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RunError
from dipp_toolkit.objective.base import Sample
from dipp_toolkit.objective.estimators.base import GradientEstimator
from dipp_toolkit.objective.estimators.smoothing import Smoothing, lowest_cosines, smooth_directions
from dipp_toolkit.objective.estimators.surrogate import Surrogate
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.rewards.loading import FunctionReward
from dipp_toolkit.utils.rank_correlation import rank_correlation
from dipp_toolkit.utils.reproducibility import random_states, restore_random_states, seed_everything

SHAPE = (4, 8, 8)


def sample_of(batch: int = 16, seed: int = 0) -> Sample:
    random = torch.Generator().manual_seed(seed)
    x0 = torch.randn(batch, *SHAPE, generator=random)
    return Sample(x0, Condition(("a",) * batch), x0, random)


def weights() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(9))


def linear(x0: Tensor, prompts: Sequence[str]) -> Tensor:
    return (x0 * weights()).flatten(1).sum(1)


def test_cosines_are_orthonormal() -> None:
    basis = lowest_cosines(12, 5)
    torch.testing.assert_close(basis.T @ basis, torch.eye(5, dtype=torch.float64))


def test_smooth_directions_keep_lengths() -> None:
    noise = torch.randn(3, 4, 5)
    torch.testing.assert_close(smooth_directions(noise, 9, 16).square().sum((1, 2)), noise.square().sum((1, 2)))


@pytest.mark.parametrize("side", [3, 8])
def test_smoothing_is_the_projected_gradient_in_the_mean(side: int) -> None:
    """For a linear score; all waves give the gradient itself."""
    sample = sample_of(batch=4)
    estimate = Smoothing(pairs=6000, side=side).estimate(sample, linear)
    across = lowest_cosines(8, side).float()
    projector = across @ across.T
    expected = projector @ weights() @ projector
    error = (estimate.gradient - expected).flatten(1).norm(dim=1) / expected.norm()
    assert (error < 5 * (4 * side * side / 6000) ** 0.5).all()  # dimension over samples, the variance of the estimate
    torch.testing.assert_close(estimate.scores, linear(sample.x0, ()))


def test_smoothing_does_not_see_even_parts() -> None:
    def even(x0: Tensor, prompts: Sequence[str]) -> Tensor:
        return (x0 - centre).square().flatten(1).sum(1)

    sample = sample_of(batch=3)
    centre = sample.x0
    estimate = Smoothing(pairs=3).estimate(sample, even)
    assert estimate.gradient.abs().max() < 1e-4


def test_rank_correlation() -> None:
    a = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(a, a.exp()) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, torch.ones(4)) == 0
    assert rank_correlation(a, torch.tensor([1.0, 3.0, 2.0, 4.0])) == pytest.approx(0.8)


def decode(latents: Tensor) -> Tensor:
    return latents[:, :3].sigmoid()


def with_numpy(images: Tensor, prompts: Sequence[str]) -> list[float]:
    return [float(image.numpy().mean()) for image in images]


@pytest.mark.parametrize("estimator", [Smoothing(pairs=2), Surrogate(rounds=1)])
def test_a_function_that_uses_numpy_is_a_black_box(estimator: GradientEstimator) -> None:
    term = RewardTerm("mine", FunctionReward("mine", with_numpy), decode, batch=5, estimator=estimator)
    sample = sample_of()
    result = term(sample)
    assert term.black_box
    torch.testing.assert_close(result.value, decode(sample.x0).mean((1, 2, 3)))
    assert "has no gradient, so it was trained as a black box" in term.warnings()[0]


def test_a_differentiable_function_is_none() -> None:
    def blue(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return images[:, 2].mean((1, 2))

    term = RewardTerm("blue", FunctionReward("blue", blue), decode, estimator=Smoothing())
    assert term(sample_of()).grad.any()
    assert not term.black_box
    assert term.warnings() == []


class Detached:
    """Says that it is differentiable, and is not."""

    differentiable = True

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return images.detach().mean((1, 2, 3))


def test_a_reward_that_promises_a_gradient_must_keep_it() -> None:
    term = RewardTerm("detached", Detached(), decode, estimator=Smoothing())
    with pytest.raises(RunError, match="declare differentiable = False to train it as a black box"):
        term(sample_of())


def test_a_reward_that_raises_is_named() -> None:
    def broken(images: Tensor, prompts: Sequence[str]) -> Tensor:
        raise KeyError("colour")

    term = RewardTerm("broken", FunctionReward("broken", broken), decode, estimator=Smoothing())
    with pytest.raises(RunError, match="The reward 'broken' failed with KeyError: 'colour'"):
        term(sample_of())


def test_the_trial_draws_nothing_from_the_run() -> None:
    def noisy(images: Tensor, prompts: Sequence[str]) -> Tensor:
        draw = torch.rand(()) + float(np.random.rand()) + random.random()
        return images.mean((1, 2, 3)) + draw

    def scores_of(term: RewardTerm, steps: int) -> list[Tensor]:
        return [term(sample_of()).value for _ in range(steps)]

    def begin() -> RewardTerm:
        return RewardTerm("noisy", FunctionReward("noisy", noisy), decode, estimator=Smoothing())

    seed_everything(3)
    whole = scores_of(begin(), 4)
    seed_everything(3)
    stopped = scores_of(begin(), 2)
    states = random_states(torch.device("cpu"))
    seed_everything(5)
    restore_random_states(states, torch.device("cpu"))
    resumed = scores_of(begin(), 2)  # another process: it does not know yet whether the reward has a gradient
    assert torch.equal(torch.stack(whole), torch.stack(stopped + resumed))
