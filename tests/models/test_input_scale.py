"""What a one-step generator's network is given, z or sigma z: read from folders, exported, and equal to stock."""

from __future__ import annotations

from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from dipp_cli.app import main
from dipp_toolkit.config import TrainConfig
from dipp_toolkit.diffusion.predictions import Prediction
from dipp_toolkit.diffusion.schedules import expand_like
from dipp_toolkit.errors import RequestError
from dipp_toolkit.evaluation.comparison import Comparison
from dipp_toolkit.experiments.bench.entries import BenchEntry
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.loading import load_generator
from dipp_toolkit.models.readout import SIGMA_STARTS, recorded_input_scale
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.stock_schedulers import one_step_scheduler
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.training.run import train
from tiny import PROMPTS, plain_diffusers

PIXART, STABLE, XL = "PixArtAlphaPipeline", "StableDiffusionPipeline", "StableDiffusionXLPipeline"
EULER = {"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear", "timestep_spacing": "trailing"}


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        (EULER, "sigma"),  # SD-Turbo, and what is exported
        (EULER | {"_class_name": "EulerAncestralDiscreteScheduler"}, "sigma"),  # SDXL-Turbo
        (EULER | {"timestep_spacing": "leading"}, "unit"),  # Stable Diffusion XL, sampled in many steps
        ({"_class_name": "EulerDiscreteScheduler"}, "unit"),  # linspace is what it means where it says nothing
        ({"_class_name": "LCMScheduler"}, "unit"),
        ({"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"}, "unit"),
        ({"_class_name": "DPMSolverMultistepScheduler", "timestep_spacing": "trailing"}, "unit"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "unit"),
        ({}, "unit"),
    ],
)
def test_a_folders_scheduler_says_what_the_network_is_given(config: dict[str, Any], scale: str) -> None:
    assert recorded_input_scale(config) == scale


def test_every_stock_scheduler_with_trailing_spacing_is_known_for_what_it_gives() -> None:
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scales = []
    for scheduler in (getattr(diffusers, name) for name in dir(diffusers) if name.endswith("Scheduler")):
        if "timestep_spacing" in (known := signature(scheduler.__init__).parameters) and "beta_schedule" in known:
            if scheduler in (diffusers.CogVideoXDPMScheduler, diffusers.PNDMScheduler):
                continue  # the one has no images' pipeline, the other no single step
            pipeline = scheduler(**betas, timestep_spacing="trailing")
            pipeline.set_timesteps(1)
            one, first = torch.ones(1), pipeline.timesteps[0]
            given = pipeline.scale_model_input(one * pipeline.init_noise_sigma, first).item()
            scales.append(recorded_input_scale({"_class_name": scheduler.__name__, "timestep_spacing": "trailing"}))
            assert given == pytest.approx({"unit": 1.0, "sigma": 0.997667}[scales[-1]], abs=1e-5), scheduler
    assert {"unit", "sigma"} == set(scales) and scales.count("sigma") == len(SIGMA_STARTS)


@pytest.mark.first_case
@pytest.mark.parametrize(
    ("name", "prediction", "readout"),
    [
        (PIXART, "epsilon", 440 / 999),
        (PIXART, "v_prediction", 0.4),
        (PIXART, "sample", 1.0),
        (STABLE, "epsilon", 625 / 999),
        (STABLE, "v_prediction", 1.0),
        (XL, "epsilon", 1.0),
        (XL, "v_prediction", 399 / 999),
        (XL, "sample", 399 / 999),
    ],
)
@pytest.mark.parametrize("scale", ["unit", "sigma"])
def test_an_export_is_a_stock_pipeline_and_loads_as_it_was(
    name: str, prediction: Prediction, readout: float, scale: Any, tmp_path: Path
) -> None:
    folder = write_twin(name, tmp_path / "twin", prediction_type=prediction)
    condition = DiffusersReference.load(str(folder)).encode(PROMPTS)
    generator = DiffusersGenerator.load(str(folder), readout, input_scale=scale)
    generator.check_exportable()
    generator.save_pretrained(tmp_path / "final")
    again = DiffusersGenerator.load(str(tmp_path / "final"))
    noise = fixed_noise(len(PROMPTS), generator.latent_shape, 5)
    with torch.no_grad():
        ours, reloaded = generator.generate(noise, condition), again.generate(noise, condition)
    assert torch.equal(ours, reloaded) and again.input_scale == scale
    timesteps = [item.denoiser.schedule.network_time(torch.tensor([item.readout])) for item in (generator, again)]
    assert timesteps[0] == timesteps[1] == round(readout * 999)
    # Noise that is predicted is divided by alpha, so the latents of a random network are as large as 800.
    theirs = plain_diffusers(tmp_path / "final", noise, 1, 1.0)
    assert (theirs - ours).abs().max() < 1e-5 * ours.abs().max()


def test_the_two_scales_make_images_that_differ_by_what_is_said(tmp_path: Path) -> None:
    folder = write_twin(STABLE, tmp_path / "twin")
    generator = DiffusersGenerator.load(str(folder), 625 / 999, input_scale="sigma")
    assert DiffusersGenerator.load(str(folder), 625 / 999).input_scale == "unit"
    with torch.no_grad():
        for parameter in generator.network.parameters():
            parameter.zero_()  # it predicts no noise, so that x_0 is what it is given, divided by alpha
    noise, schedule = fixed_noise(2, generator.latent_shape, 5), generator.denoiser.schedule
    alpha, sigma = (expand_like(item(torch.full((2,), 625 / 999)), noise) for item in (schedule.alpha, schedule.sigma))
    condition = DiffusersReference.load(str(folder)).encode(PROMPTS[:2])
    torch.testing.assert_close(generator.generate(noise, condition), sigma / alpha * noise)


def test_a_reference_sampled_by_euler_starts_a_generator_of_z(tmp_path: Path) -> None:
    reference = DiffusersReference.load(str(write_twin(XL, tmp_path / "twin")))
    assert reference.scheduler.config._class_name == "EulerDiscreteScheduler"
    assert DiffusersGenerator.from_reference(reference).input_scale == "unit"
    assert DiffusersGenerator.load(str(tmp_path / "twin")).input_scale == "unit"
    assert DiffusersGenerator.from_reference(reference, 0.4, "sigma").input_scale == "sigma"


def test_several_steps_start_from_z_as_lcm_does(tmp_path: Path) -> None:
    generator = DiffusersGenerator.load(str(write_twin(STABLE, tmp_path / "twin")), 0.625, input_scale="sigma")
    few = generator.in_steps(4)
    with pytest.raises(RequestError, match=r"LCMScheduler.* Set input_scale=unit, or generator_steps=1"):
        few.check_exportable()
    with pytest.raises(RequestError, match="input_scale=unit"):
        assert few.times
    DiffusersGenerator.load(str(tmp_path / "twin"), 0.625, input_scale="unit").in_steps(4).check_exportable()
    flow = DiffusersGenerator.load(str(write_twin("StableDiffusion3Pipeline", tmp_path / "3")), input_scale="sigma")
    flow.in_steps(4).check_exportable()  # at time 1 there is no signal, and sigma is 1


def test_without_signal_both_are_the_same_and_exported_so() -> None:
    cosine = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}
    zero = {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    for config in (cosine, zero):
        assert type(one_step_scheduler(config, 1.0, "sigma")).__name__ == "DDIMScheduler"
    with pytest.raises(RequestError, match=r"EulerDiscreteScheduler.* would lose more\. Set input_scale=unit"):
        one_step_scheduler(cosine, 998 / 999, "sigma")
    one_step_scheduler(cosine, 0.99, "sigma")


@pytest.mark.first_case
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_run_trains_exports_and_is_trained_on_from_sigma(mode: str, tmp_path: Path) -> None:
    folder = str(write_twin(STABLE, tmp_path / "twin"))
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    (tmp_path / "blue.py").write_text("def blue(images, prompts):\n    return images[:, 2].mean((1, 2))\n")
    config: dict[str, Any] = {
        "reference": folder, "rewards": {f"{tmp_path / 'blue.py'}:blue": 1.0}, "prompts": str(tmp_path / "prompts.txt"),
        "prompt_cache": tmp_path / "cache", "device": "cpu", "precision": "fp32", "mode": mode, "lora_rank": 2,
        "learning_rate": 1e-3, "steps": 2, "batch_size": 2, "eval_count": 2, "reference_steps": 2,
    }  # fmt: skip
    first = train(
        TrainConfig(generator=folder, readout=625 / 999, input_scale="sigma", out=tmp_path / "first", **config)
    )
    assert "input_scale: sigma" in (first.folder / "config.yaml").read_text()
    noise = fixed_noise(len(PROMPTS), (4, 8, 8), 5)
    saved = load_generator(str(first.folder))
    assert isinstance(saved, DiffusersGenerator) and saved.input_scale == "sigma"
    with torch.no_grad():
        ours = saved.generate(noise, DiffusersReference.load(folder).encode(PROMPTS))
    assert (plain_diffusers(first.folder / "final", noise, 1, 1.0) - ours).abs().max() < 1e-4

    # Its own folder says how it is fed, so that a second alignment needs no setting, and one would mean something else.
    for cut in (str(first.folder), str(first.folder / "final")):
        with pytest.raises(
            RequestError, match=r"at timestep 625; readout=0\.626 of .* timestep 391\. Leave readout out"
        ):
            load_generator(cut, readout=625 / 999)
    second = train(TrainConfig(generator=str(first.folder), out=tmp_path / "second", **config))
    again = load_generator(str(second.folder))
    assert isinstance(again, DiffusersGenerator) and again.input_scale == "sigma"
    assert again.denoiser.schedule.network_time(torch.tensor([again.readout])) == 625
    before = Comparison.load(second.folder / "samples" / "comparison").images["before"]
    after = Comparison.load(first.folder / "samples" / "comparison").images["after"]
    # Merged weights round otherwise than adapters beside them, which may move a pixel by one of its 256 levels.
    allowed = 1.01 / 255 if mode == "lora" else 0.0
    assert (before - after).abs().max() <= allowed, "the second run begins with what the first one ended with"

    source = BenchEntry("first", str(first.folder)).source(torch.device("cpu"))
    fingerprint = source.fingerprint()
    source.generator = replace(saved, input_scale="unit")
    assert source.fingerprint() != fingerprint


def test_a_dry_run_says_that_a_turbo_takes_one_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    words = ["train", "--prompts", str(tmp_path / "prompts.txt"), "--dry-run", "--set", "generator_steps=4"]
    assert main([*words, "--generator", "sd-turbo"]) == 2
    assert "Set input_scale=unit, or generator_steps=1." in capsys.readouterr().err
    assert main([*words, "--generator", "sd-turbo", "--set", "input_scale=unit"]) == 0
    assert main([*words, "--generator", "sd15-onestep"]) == 0, "it is yet to be trained, and starts from z"
