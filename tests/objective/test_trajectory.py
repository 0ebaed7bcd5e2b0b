"""The regression on the reference's sampler: its target, its share of the batch, its side."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dipp_toolkit.objective.base import Sample, side_of
from dipp_toolkit.objective.terms.trajectory import Trajectory
from dipp_toolkit.verify.cases import CASES, make_reference
from dipp_toolkit.verify.gradients import compare_gradients
from dipp_toolkit.verify.runner import run_case
from dipp_toolkit.verify.world import GaussianReference
from dipp_toolkit.verify.world_terms import Subject


def a_sample(reference: GaussianReference, count: int = 8) -> Sample:
    random = torch.Generator().manual_seed(3)
    noise = torch.randn(count, *reference.latent_shape, generator=random, dtype=torch.float64)
    return Sample(0.5 * noise + 0.1, reference.encode(["a"] * count), noise, random)


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_the_gradient_is_that_of_the_squared_error_of_its_share(share: float) -> None:
    reference = make_reference()
    sample, count = a_sample(reference), round(8 * share)
    result = Trajectory(reference, guidance=2.0, sampler_steps=3, share=share)(sample)
    x0 = sample.x0.clone().requires_grad_(True)
    target = reference.sample(sample.condition, sample.noise, 3, 2.0)
    loss = (x0[:count] - target[:count]).square().sum() / 2 / share
    torch.testing.assert_close(result.grad, torch.autograd.grad(loss, x0)[0])
    torch.testing.assert_close(result.value.sum(), loss.detach() / x0[0].numel())
    assert not result.grad[count:].any()


def test_at_least_one_sample_is_looked_at() -> None:
    reference = make_reference()
    result = Trajectory(reference, share=0.01)(a_sample(reference, 4))
    assert result.grad[0].any()


def test_guidance_follows_its_schedule() -> None:
    from dipp_toolkit.utils.piecewise_linear import PiecewiseLinear

    reference = make_reference()
    sample = replace(a_sample(reference), step=10)
    term = Trajectory(reference, PiecewiseLinear.parse("0:1,20:3"), share=1.0)
    torch.testing.assert_close(term(sample).grad, Trajectory(reference, 2.0, share=1.0)(sample).grad)


def test_it_pulls_back_to_the_reference() -> None:
    assert side_of(Trajectory(make_reference())) == "divergences"


def test_with_a_curved_reward_it_ends_where_its_closed_form_says() -> None:
    rows = run_case(CASES["quadratic"], "trajectory", "exact", options={"share": 1.0})
    assert [row.quantity for row in rows] == ["mean", "covariance", "gradient"]
    assert all(row.passed for row in rows), rows


def test_a_target_of_another_noise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Trajectory.target

    def of_the_neighbour(self: Trajectory, sample: Sample, count: int) -> torch.Tensor:
        return own(self, replace(sample, noise=sample.noise.flip(0)), count)

    monkeypatch.setattr(Trajectory, "target", of_the_neighbour)
    expected, found = compare_gradients(CASES["distillation"], Subject("trajectory", {"share": 1.0}), make_reference())
    assert (found - expected).norm() > 0.05 * expected.norm()
