"""One step as the published generators' own code takes it: stock pipelines' calls, and formulas written out here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
)
from torch import Tensor

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.lora import AdapterSettings
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.tiny_pipelines import write_twin
from tiny import PROMPTS

PIXART, STABLE, XL = "PixArtAlphaPipeline", "StableDiffusionPipeline", "StableDiffusionXLPipeline"


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("twins")
    return {name: write_twin(name, root / name) for name in (PIXART, STABLE, XL)}


def rescheduled(twin: Path, folder: Path, scheduler: type, **settings: Any) -> Any:
    """A twin with another scheduler, saved: its pipeline, as stock loads it."""
    pipeline = DiffusionPipeline.from_pretrained(twin)
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **settings)
    pipeline.save_pretrained(folder)
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    assert type(pipeline.scheduler) is scheduler
    return pipeline


def called(pipeline: Any, noise: Tensor, **call: Any) -> tuple[Tensor, Tensor]:
    """The pipeline's latents, and what its network was given."""
    if "PixArt" in type(pipeline).__name__:
        call |= {"use_resolution_binning": False}
    given: list[Tensor] = []
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    network.register_forward_pre_hook(lambda _, positional: given.append(positional[0]))
    latents = pipeline(list(PROMPTS), latents=noise, output_type="latent", **call).images
    (only,) = given
    return latents, only


def ours(generator: DiffusersGenerator, noise: Tensor) -> Tensor:
    with torch.no_grad():
        return generator.generate(noise, condition_of(generator.folder))


def condition_of(folder: Path) -> Condition:
    return DiffusersReference.load(str(folder)).encode(PROMPTS)


def close(one: Tensor, other: Tensor) -> bool:
    """Within 1e-4, of latents as large as a random network's noise prediction makes them."""
    return bool((one - other).abs().max() < 1e-4 * max(1.0, other.abs().max().item() / 100))


@pytest.mark.parametrize(("name", "timestep"), [(STABLE, 399), (XL, 399), (PIXART, 400)])
def test_one_lcm_step_at_a_timestep(twins: dict[str, Path], name: str, timestep: int, tmp_path: Path) -> None:
    """DMD2 and its offspring at 399, PixArt-DMD at 400."""
    pipeline = rescheduled(twins[name], tmp_path / "lcm", LCMScheduler)
    generator = DiffusersGenerator.load(str(twins[name]), timestep / 999)
    noise = fixed_noise(len(PROMPTS), generator.latent_shape, 7)
    theirs, given = called(pipeline, noise, timesteps=[timestep], guidance_scale=1.0)
    assert torch.equal(given, noise)
    assert close(ours(generator, noise), theirs)
    again = DiffusersGenerator.load(str(tmp_path / "lcm"), timestep / 999)
    assert again.input_scale == "unit" and torch.equal(ours(again, noise), ours(generator, noise))


@pytest.mark.first_case
@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, EulerAncestralDiscreteScheduler])
@pytest.mark.parametrize("name", [STABLE, XL, PIXART])
def test_one_trailing_euler_step(twins: dict[str, Path], name: str, scheduler: type, tmp_path: Path) -> None:
    """SD-Turbo and SDXL-Turbo, whose folders say all of it."""
    pipeline = rescheduled(twins[name], tmp_path / "turbo", scheduler, timestep_spacing="trailing")
    generator = DiffusersGenerator.load(str(tmp_path / "turbo"))
    assert (generator.input_scale, generator.readout) == ("sigma", 1.0)
    noise = fixed_noise(len(PROMPTS), generator.latent_shape, 7)
    theirs, given = called(pipeline, noise, num_inference_steps=1, guidance_scale=0.0)
    sigma = generator.denoiser.schedule.sigma(torch.ones(1)).item()
    torch.testing.assert_close(given, sigma * noise, rtol=1e-6, atol=1e-6)
    if name != PIXART:  # the betas of Stable Diffusion
        assert float(pipeline.scheduler.init_noise_sigma) == pytest.approx(14.6146, abs=1e-4)
        assert sigma == pytest.approx(0.99767, abs=1e-5)
    assert close(ours(generator, noise), theirs)
    assert not close(ours(DiffusersGenerator.load(str(tmp_path / "turbo"), input_scale="unit"), noise), theirs)


def test_the_sampler_of_sid_lsg(twins: dict[str, Path]) -> None:
    """x_t is noised from x_0 = 0 at 625, and read as a DDPM scheduler reads it."""
    generator = DiffusersGenerator.load(str(twins[STABLE]), 625 / 999, input_scale="sigma")
    noise, condition = fixed_noise(len(PROMPTS), generator.latent_shape, 7), condition_of(twins[STABLE])
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler, t = DDPMScheduler(**betas, clip_sample=False), torch.full((len(PROMPTS),), 625)
    x_t = scheduler.add_noise(torch.zeros_like(noise), noise, t)
    with torch.no_grad():
        predicted = generator.family.forward(generator.network, x_t, t, condition)
    alpha = scheduler.alphas_cumprod[625].sqrt()
    theirs = (x_t - (1 - alpha**2).sqrt() * predicted) / alpha
    torch.testing.assert_close(ours(generator, noise), theirs, rtol=1e-5, atol=1e-5)


def test_the_preconditioning_of_sim(twins: dict[str, Path]) -> None:
    """x = s z with s = 2.5, D = x - s F(x / sqrt(s^2 + 1), 440)."""
    generator = DiffusersGenerator.load(str(twins[PIXART]), 440 / 999, input_scale="sigma")
    noise, condition = fixed_noise(len(PROMPTS), generator.latent_shape, 7), condition_of(twins[PIXART])
    levels = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).neg().add(1).cumprod(0).reciprocal().sub(1).sqrt()
    assert (levels - 2.5).abs().argmin() == 440, "the grid's time for 2.5"

    def sampled(level: float) -> Tensor:
        x = level * noise
        with torch.no_grad():
            predicted = generator.family.forward(
                generator.network, x / (level**2 + 1) ** 0.5, torch.full((len(x),), 440), condition
            )
        return x - level * predicted

    torch.testing.assert_close(ours(generator, noise), sampled(levels[440].item()), rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(ours(generator, noise), sampled(2.5), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_the_gradient_goes_through_the_scaled_input(twins: dict[str, Path], mode: str) -> None:
    reference = DiffusersReference.load(str(twins[STABLE]))
    generator = DiffusersGenerator.load(str(twins[STABLE]), 625 / 999, input_scale="sigma")
    if mode == "lora":
        generator.adapt(AdapterSettings(2, 2.0), reference)
    generator.network.double()
    condition = reference.encode(PROMPTS[:2]).to(torch.float64)
    torch.manual_seed(3)
    noise = torch.randn(2, *generator.latent_shape, dtype=torch.float64)
    weights = torch.randn_like(noise)
    parameters = [parameter for parameter in generator.network.parameters() if parameter.requires_grad]
    for parameter in parameters:  # adapters begin with zeros, where half of their gradients are zero
        parameter.data.add_(torch.randn_like(parameter), alpha=0.01)
    directions = [torch.randn_like(parameter) for parameter in parameters]
    gradients = torch.autograd.grad(
        (weights * generator.generate(noise, condition)).sum(), parameters, allow_unused=True
    )
    slope = sum(((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None), torch.zeros(()))

    def value(step: float) -> Tensor:
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(direction, alpha=step)
            result = (weights * generator.generate(noise, condition)).sum()
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.sub_(direction, alpha=step)
        return result

    step = 1e-5
    torch.testing.assert_close((value(step) - value(-step)) / (2 * step), slope, rtol=1e-5, atol=1e-6)
