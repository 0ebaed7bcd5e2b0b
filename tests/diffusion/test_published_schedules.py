"""The published pipelines' schedules and conversions against diffusers' own schedulers, at every timestep."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler

from dipp_toolkit.diffusion.predictions import from_x0, prediction_from_config, to_x0
from dipp_toolkit.diffusion.schedules import add_noise, expand_like, schedule_from_config
from dipp_toolkit.models.blueprints import PipelineBlueprint, find_blueprint

VARIANCE_PRESERVING = ("pixart-alpha", "sd15", "sd21", "sdxl", "sd-turbo", "sdxl-turbo")
KEPT = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
EVERY = torch.arange(1000)
SHAPE = (1000, 2, 3, 3)


def config_of(name: str) -> dict:
    blueprint = find_blueprint(name)
    assert isinstance(blueprint, PipelineBlueprint)
    return blueprint.scheduler_config


def stock(kind: type, name: str, **more: object) -> object:
    return kind(**{key: value for key, value in config_of(name).items() if key in KEPT}, **more)


@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
def test_noise_is_added_as_ddpm_does(name: str) -> None:
    x0, noise = torch.randn(SHAPE), torch.randn(SHAPE)
    ours = add_noise(schedule_from_config(config_of(name)), x0, noise, EVERY / 999)
    torch.testing.assert_close(ours, stock(DDPMScheduler, name).add_noise(x0, noise, EVERY), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
def test_v_is_diffusers_velocity(name: str) -> None:
    x0, noise = torch.randn(SHAPE), torch.randn(SHAPE)
    schedule = schedule_from_config(config_of(name))
    alpha, sigma = (expand_like(item(EVERY / 999), x0) for item in (schedule.alpha, schedule.sigma))
    x_t = add_noise(schedule, x0, noise, EVERY / 999)
    theirs = stock(DDPMScheduler, name).get_velocity(x0, noise, EVERY)
    # Dividing by sigma amplifies rounding at the cleanest times, so the conversion is compared in float64.
    wide = [item.double() for item in (x0, x_t, alpha, sigma)]
    exact = (
        expand_like(schedule.alpha(EVERY.double() / 999), wide[0]),
        expand_like(schedule.sigma(EVERY.double() / 999), wide[0]),
    )
    x_t64 = exact[0] * wide[0] + exact[1] * noise.double()
    ours = from_x0("v_prediction", wide[0], x_t64, *exact)
    torch.testing.assert_close(ours.float(), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
def test_the_denoised_sample_is_ddims(name: str, prediction: str) -> None:
    scheduler = stock(DDIMScheduler, name, prediction_type=prediction, clip_sample=False)
    scheduler.set_timesteps(1000)
    schedule = schedule_from_config(config_of(name))
    x_t, output = torch.randn(SHAPE), torch.randn(SHAPE)
    alpha, sigma = (expand_like(item(EVERY / 999), x_t) for item in (schedule.alpha, schedule.sigma))
    ours = to_x0(prediction, output, x_t, alpha, sigma)
    theirs = torch.stack(
        [scheduler.step(output[t], t, x_t[t]).pred_original_sample for t in range(1000)]
    )  # pure noise read as noise: x_0 grows with 1 / alpha, so the comparison is relative
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_is_diffusers(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**{**_flow_config(), "shift": shift})
    schedule = schedule_from_config({**config_of("sd3"), "shift": shift})
    t = torch.arange(1000, 0, -1) / 1000
    torch.testing.assert_close(schedule.sigma(t), scheduler.sigmas[:1000], rtol=0, atol=1e-5)
    torch.testing.assert_close(schedule.network_time(t), scheduler.timesteps, rtol=1e-6, atol=1e-5)
    x0, noise = torch.randn(SHAPE), torch.randn(SHAPE)
    theirs = scheduler.scale_noise(x0, scheduler.timesteps, noise)
    torch.testing.assert_close(add_noise(schedule, x0, noise, t), theirs, rtol=0, atol=1e-5)
    assert prediction_from_config(config_of("sd3")) == "velocity"
    sigma = expand_like(schedule.sigma(t), x0)
    torch.testing.assert_close(to_x0("velocity", noise - x0, theirs, 1 - sigma, sigma), x0, rtol=0, atol=1e-5)


def _flow_config() -> dict:
    return {key: value for key, value in config_of("sd3").items() if not key.startswith("_")}
