"""Conversions between eps, v, x0, velocity and score: round trips, definitions, and diffusers' own."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from dipp_toolkit.diffusion.predictions import (
    Prediction,
    from_x0,
    prediction_from_config,
    score_from_x0,
    to_x0,
    x0_from_score,
)
from dipp_toolkit.diffusion.schedules import FlowMatching, Schedule, VariancePreserving, add_noise, expand_like
from dipp_toolkit.errors import RequestError

KINDS = get_args(Prediction)
SCHEDULES = {
    "vp": VariancePreserving.from_scheduler_config({"beta_schedule": "scaled_linear"}),
    "flow": FlowMatching(shift=2.0),
}
T = torch.tensor([0.1, 0.4, 0.7, 0.9], dtype=torch.float64)


@pytest.fixture(params=SCHEDULES)
def noised(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x0, noise, x_t, alpha and sigma in double precision."""
    schedule: Schedule = SCHEDULES[request.param]
    x0, noise = torch.randn(4, 2, 3, dtype=torch.float64), torch.randn(4, 2, 3, dtype=torch.float64)
    alpha, sigma = expand_like(schedule.alpha(T), x0), expand_like(schedule.sigma(T), x0)
    return x0, noise, add_noise(schedule, x0, noise, T), alpha, sigma


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_through_the_sample(kind: Prediction, noised: tuple) -> None:
    _, _, x_t, alpha, sigma = noised
    output = torch.randn_like(x_t)
    x0 = to_x0(kind, output, x_t, alpha, sigma)
    torch.testing.assert_close(from_x0(kind, x0, x_t, alpha, sigma), output)


@pytest.mark.parametrize("kind", KINDS)
def test_the_definition_gives_back_the_sample(kind: Prediction, noised: tuple) -> None:
    x0, noise, x_t, alpha, sigma = noised
    truth = {"epsilon": noise, "v_prediction": alpha * noise - sigma * x0, "sample": x0, "velocity": noise - x0}[kind]
    torch.testing.assert_close(to_x0(kind, truth, x_t, alpha, sigma), x0)
    torch.testing.assert_close(from_x0(kind, x0, x_t, alpha, sigma), truth)


def test_score_is_minus_noise_over_sigma(noised: tuple) -> None:
    x0, noise, x_t, alpha, sigma = noised
    torch.testing.assert_close(score_from_x0(x0, x_t, alpha, sigma), -noise / sigma)
    torch.testing.assert_close(x0_from_score(-noise / sigma, x_t, alpha, sigma), x0)


def test_score_is_the_gradient_of_a_gaussians_log_density(noised: tuple) -> None:
    _, _, x_t, alpha, sigma = noised
    mean, variance = 0.7, 2.0
    total = alpha.square() * variance + sigma.square()
    x = x_t.clone().requires_grad_(True)
    (-(x - alpha * mean).square() / (2 * total)).sum().backward()
    posterior = mean + alpha * variance / total * (x_t - alpha * mean)
    torch.testing.assert_close(score_from_x0(posterior, x_t, alpha, sigma), x.grad)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_agrees_with_ddim(kind: Prediction) -> None:
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", prediction_type=kind, clip_sample=False)
    schedule = VariancePreserving.from_scheduler_config(dict(scheduler.config))
    scheduler.set_timesteps(1000)
    x_t, output = torch.randn(1, 2, 3), torch.randn(1, 2, 3)
    for index in (10, 500, 900):
        t = torch.tensor([index / 999])
        alpha, sigma = expand_like(schedule.alpha(t), x_t), expand_like(schedule.sigma(t), x_t)
        theirs = scheduler.step(output, index, x_t).pred_original_sample
        torch.testing.assert_close(to_x0(kind, output, x_t, alpha, sigma), theirs, rtol=1e-5, atol=1e-5)


def test_velocity_agrees_with_the_flow_solver() -> None:
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    scheduler.set_timesteps(10)
    scheduler._step_index = 4
    x_t, output = torch.randn(1, 2, 3), torch.randn(1, 2, 3)
    sigma = scheduler.sigmas[4].reshape(1, 1, 1)
    theirs = scheduler.convert_model_output(output, sample=x_t)
    torch.testing.assert_close(to_x0("velocity", output, x_t, 1 - sigma, sigma), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({}, "epsilon"),
        ({"prediction_type": "v_prediction"}, "v_prediction"),
        ({"prediction_type": "sample"}, "sample"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "velocity"),
        ({"prediction_type": "flow_prediction"}, "velocity"),
    ],
)
def test_prediction_is_read_from_the_config(config: dict, kind: Prediction) -> None:
    assert prediction_from_config(config) == kind


def test_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(RequestError, match=r"prediction_type is 'mystery'; known are epsilon"):
        prediction_from_config({"prediction_type": "mystery"})
