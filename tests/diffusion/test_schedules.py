"""Schedules against diffusers' own schedulers and against their definitions."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, SCMScheduler

from dipp_toolkit.diffusion.predictions import prediction_from_config, to_x0
from dipp_toolkit.diffusion.schedules import (
    FlowMatching,
    TrigFlow,
    VariancePreserving,
    add_noise,
    discrete_times,
    expand_like,
    schedule_from_config,
    usable_times,
)
from dipp_toolkit.errors import RequestError

CONFIGS = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "zero_terminal_snr": {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "rescale_betas_zero_snr": True,
    },
    "trained_betas": {"trained_betas": torch.linspace(0.001, 0.05, 200).tolist(), "num_train_timesteps": 200},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_variance_preserving_noises_as_ddpm_does(config: dict) -> None:
    scheduler = DDPMScheduler(**config)
    schedule = schedule_from_config(dict(scheduler.config))
    count = scheduler.config.num_train_timesteps
    timesteps = torch.tensor([0, 1, count // 3, count // 2, count - 2, count - 1])
    x0, noise = torch.randn(6, 2, 3, 3), torch.randn(6, 2, 3, 3)
    ours = add_noise(schedule, x0, noise, timesteps / (count - 1))
    torch.testing.assert_close(ours, scheduler.add_noise(x0, noise, timesteps), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_variance_preserving_keeps_variance_and_rises(config: dict) -> None:
    schedule = schedule_from_config(dict(DDPMScheduler(**config).config))
    t = discrete_times(schedule).double()
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones_like(t), rtol=0, atol=1e-6)
    assert (alpha.diff() < 0).all()
    assert (sigma.diff() > 0).all()


def test_zero_terminal_snr_ends_in_pure_noise() -> None:
    schedule = schedule_from_config(dict(DDPMScheduler(**CONFIGS["zero_terminal_snr"]).config))
    assert schedule.alpha(torch.ones(1)).item() == pytest.approx(0, abs=1e-6)
    assert schedule.sigma(torch.ones(1)).item() == pytest.approx(1)


def test_every_grid_time_is_hit_exactly() -> None:
    schedule = VariancePreserving.from_scheduler_config({"beta_schedule": "linear", "num_train_timesteps": 777})
    assert schedule.network_time(discrete_times(schedule)).tolist() == list(range(777))
    assert len(discrete_times(FlowMatching(), count=50)) == 50


def test_times_between_grid_points_are_rounded_together() -> None:
    schedule = VariancePreserving.from_scheduler_config({"beta_schedule": "linear"})
    t = torch.tensor([0.50001, 0.4999])
    index = schedule.network_time(t)
    torch.testing.assert_close(schedule.alpha(t).square(), schedule.alphas_cumprod[index], rtol=1e-6, atol=0)


def test_only_the_schedule_of_a_sampler_matters() -> None:
    ddpm = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    solver = DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing")
    t = torch.rand(10)
    ours, theirs = (schedule_from_config(dict(item.config)) for item in (ddpm, solver))
    assert torch.equal(ours.alpha(t), theirs.alpha(t))


def test_flow_matching_is_the_straight_line() -> None:
    t = torch.linspace(0, 1, 11)
    schedule = FlowMatching()
    torch.testing.assert_close(schedule.alpha(t), 1 - t)
    torch.testing.assert_close(schedule.sigma(t), t)
    torch.testing.assert_close(schedule.network_time(t), 1000 * t)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_noises_as_diffusers_does(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    schedule = schedule_from_config(dict(scheduler.config) | {"_class_name": "FlowMatchEulerDiscreteScheduler"})
    assert isinstance(schedule, FlowMatching)
    chosen = torch.tensor([0, 10, 500, 999])
    timesteps, x0, noise = scheduler.timesteps[chosen], torch.randn(4, 2, 3), torch.randn(4, 2, 3)
    # Before the shift, diffusers' training times run from 1 down to 1/N.
    t = 1 - chosen / 1000
    torch.testing.assert_close(schedule.network_time(t), timesteps, rtol=1e-5, atol=1e-3)
    theirs = scheduler.scale_noise(x0, timesteps, noise)
    torch.testing.assert_close(add_noise(schedule, x0, noise, t), theirs, rtol=1e-4, atol=1e-5)


def test_shift_follows_its_formula_and_keeps_the_ends() -> None:
    schedule = FlowMatching(shift=3.0)
    t = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(schedule.sigma(t), torch.tensor([0.0, 0.75, 1.0]))


@pytest.mark.parametrize(
    ("config", "shift"),
    [
        ({"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True, "flow_shift": 5.0}, 5.0),
        ({"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction"}, 1.0),
    ],
)
def test_flow_configurations_of_other_samplers(config: dict, shift: float) -> None:
    schedule = schedule_from_config({"beta_schedule": "linear", **config})
    assert isinstance(schedule, FlowMatching)
    assert schedule.shift == shift


def test_trigflow_reads_as_diffusers_does() -> None:
    scheduler = SCMScheduler(sigma_data=0.5)
    config = {**scheduler.config, "_class_name": "SCMScheduler"}
    schedule, prediction = schedule_from_config(config), prediction_from_config(config)
    assert isinstance(schedule, TrigFlow) and prediction == "v_prediction"
    scheduler.set_timesteps(9, intermediate_timesteps=None)
    angles = scheduler.timesteps[:-1]
    t = (angles / (torch.pi / 2)).clamp(max=1)
    torch.testing.assert_close(schedule.network_time(t), angles, rtol=0, atol=1e-5)
    x_t, output = torch.randn(9, 2, 3, 3), torch.randn(9, 2, 3, 3)
    ours = to_x0(prediction, output, x_t, *(expand_like(part(t), x_t) for part in (schedule.alpha, schedule.sigma)))
    for place, angle in enumerate(angles):
        _, theirs = scheduler.step(output[place], angle, x_t[place], return_dict=False)
        torch.testing.assert_close(ours[place], theirs, rtol=0, atol=1e-5)


def test_trigflow_is_flow_matching_in_another_scale() -> None:
    circle, line = TrigFlow(), FlowMatching()
    t = torch.linspace(0, 1, 21, dtype=torch.float64)
    alpha, sigma = circle.alpha(t), circle.sigma(t)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones_like(t))
    at = sigma / (alpha + sigma)
    torch.testing.assert_close(alpha / (alpha + sigma), line.alpha(at))
    inside = t[1:-1].clone().requires_grad_()
    (rate,) = torch.autograd.grad((circle.sigma(inside) / circle.alpha(inside)).log().sum(), inside)
    torch.testing.assert_close(circle.noise_rate(inside), rate)
    assert (alpha[0], sigma[0], sigma[-1]) == (1, 0, 1) and circle.alpha(torch.ones(1)) == 0
    assert circle.noise_rate(torch.tensor([0.0, 1.0])).isinf().all()
    low, high = usable_times(circle)
    assert 0 < low < 0.01 and 0.99 < high < 1


def test_a_config_without_schedule_is_refused() -> None:
    with pytest.raises(RequestError, match="no beta_schedule"):
        schedule_from_config({"_class_name": "SomethingElse"})


def test_dtypes_follow_the_times() -> None:
    for schedule in (FlowMatching(), TrigFlow(), VariancePreserving.from_scheduler_config({"beta_schedule": "linear"})):
        assert schedule.alpha(torch.rand(3, dtype=torch.float64)).dtype == torch.float64
        x = torch.randn(3, 2, 2, dtype=torch.float64)
        assert expand_like(schedule.sigma(torch.rand(3)), x).dtype == torch.float64
        assert expand_like(torch.rand(3), x).shape == (3, 1, 1)


def test_a_schedule_goes_to_a_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`meta` stands for an accelerator: what is copied there has no bits, and is counted."""
    schedule = VariancePreserving(torch.linspace(0.99, 0.01, 12))
    copied, plain = [], torch.Tensor.to

    def to(tensor: torch.Tensor, *given: object, **named: object) -> torch.Tensor:
        if tensor is schedule.alphas_cumprod:
            copied.append(given)
        return plain(tensor, *given, **named)

    monkeypatch.setattr(torch.Tensor, "to", to)
    t = torch.zeros(3, device="meta")
    for _ in range(3):
        assert schedule.alpha(t).device == schedule.sigma(t).device == t.device
    assert len(copied) == 1
    schedule.alpha(torch.zeros(3))
    assert len(copied) == 1, "at home nothing is copied"
