"""Schedulers as published folders have them: corrected as stock does, read as their class reads them, exported."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, LCMScheduler, PNDMScheduler
from PIL import Image
from torch import Tensor

from dipp_cli.app import main
from dipp_toolkit import load_generator, load_reference
from dipp_toolkit.diffusion.scheduler_classes import class_config
from dipp_toolkit.diffusion.schedules import schedule_from_config
from dipp_toolkit.errors import RequestError
from dipp_toolkit.experiments.bench.sources import Source
from dipp_toolkit.models.components import heeded_scheduler_config, load_scheduler
from dipp_toolkit.models.few_steps import noises_of
from dipp_toolkit.models.files.folders import family_of
from dipp_toolkit.models.reference import DiffusersReference, check_pipeline_folder
from dipp_toolkit.models.sampling import generate_images, sample_reference
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.utils.reproducibility import own_generators

PROMPTS = ("a red fox on blue", "birthday cake")


def with_scheduler(folder: Path, kind: str, **settings: Any) -> Path:
    """Give a pipeline folder another scheduler."""
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", kind]}))
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": kind, **settings}))
    return folder


def numbers(picture: Path) -> np.ndarray:
    return np.asarray(Image.open(picture)).astype(int)


def drawn_by_stock(folder: Path, steps: int, guidance: float, shape: tuple[int, ...]) -> Tensor:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn((len(PROMPTS), *shape), generator=torch.Generator().manual_seed(0))
    if "Flux" in type(pipeline).__name__:
        noise = pipeline._pack_latents(noise, *noise.shape)
    return pipeline(
        list(PROMPTS), latents=noise, num_inference_steps=steps, guidance_scale=guidance, output_type="pt",
        height=16, width=16,
    ).images  # fmt: skip


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_twin("StableDiffusionPipeline", tmp_path_factory.mktemp("sd") / "twin")


@pytest.mark.parametrize("settings", [{"clip_sample": True, "steps_offset": 1}, {"clip_sample": False}])
def test_outdated_settings_are_corrected_as_stable_diffusion_does(stable_diffusion: Path, settings: dict) -> None:
    folder = with_scheduler(stable_diffusion, "DDIMScheduler", **settings)
    corrected = load_scheduler(folder).config
    assert (corrected["clip_sample"], corrected["steps_offset"]) == (False, 1)
    reference = load_reference(str(folder))
    ours = sample_reference(reference, reference.encode(PROMPTS), 0, 3, 2.0)
    theirs = drawn_by_stock(folder, 3, 2.0, reference.latent_shape)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_other_pipelines_leave_these_settings_alone(tmp_path: Path) -> None:
    folder = with_scheduler(write_twin("StableDiffusionXLPipeline", tmp_path / "twin"), "DDIMScheduler")
    config = load_scheduler(folder).config
    assert (config["clip_sample"], config["steps_offset"]) == (True, 0)


def test_an_export_from_a_folder_that_clips_draws_what_generate_draws(stable_diffusion: Path, tmp_path: Path) -> None:
    folder = with_scheduler(stable_diffusion, "DDIMScheduler", clip_sample=True, beta_end=0.012)
    reference, generator = load_reference(str(folder)), load_generator(str(folder))
    generator.save_pretrained(tmp_path / "out")
    ours = generate_images(generator, reference, reference.encode(PROMPTS), 0)
    theirs = drawn_by_stock(tmp_path / "out", 1, 1.0, reference.latent_shape)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    saved = json.loads((tmp_path / "out" / "scheduler" / "scheduler_config.json").read_text())
    assert saved["clip_sample"] is False


@pytest.mark.parametrize(("pipeline", "guidance"), [("FluxPipeline", 3.5), ("StableDiffusion3Pipeline", 1.0)])
def test_one_step_of_an_export_has_nothing_to_stretch(pipeline: str, guidance: float, tmp_path: Path) -> None:
    """`shift_terminal` divides by zero where there is one step, in plain diffusers."""
    folder = write_twin(pipeline, tmp_path / "twin")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shift_terminal": 0.1}))
    reference, generator = load_reference(str(folder)), load_generator(str(folder))
    generator.check_exportable()
    generator.save_pretrained(tmp_path / "out")
    ours = generate_images(generator, reference, reference.encode(PROMPTS), 0)
    theirs = drawn_by_stock(tmp_path / "out", 1, guidance, reference.latent_shape)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_a_picture_does_not_change_when_another_prompt_is_added(stable_diffusion: Path, tmp_path: Path) -> None:
    folder = with_scheduler(stable_diffusion, "EulerAncestralDiscreteScheduler")
    words = [
        "generate",
        "--reference",
        str(folder),
        "--steps",
        "3",
        "--guidance",
        "1",
        "--seed",
        "5",
        "--device",
        "cpu",
    ]
    assert main([*words, "--prompt", PROMPTS[0], "--out", str(tmp_path / "alone")]) == 0
    assert main([*words, "--prompt", PROMPTS[0], "--prompt", PROMPTS[1], "--out", str(tmp_path / "both")]) == 0
    alone, both = (numbers(next((tmp_path / name).glob("001-*.png"))) for name in ("alone", "both"))
    assert abs(alone - both).max() <= 1, "the last bit of a pixel may be rounded otherwise in a larger batch"


def test_a_benchs_images_do_not_depend_on_the_set(stable_diffusion: Path) -> None:
    source = Source(load_reference(str(with_scheduler(stable_diffusion, "DDPMScheduler"))), steps=3, guidance=2.0)
    both, alone = source.images(PROMPTS, [1, 1]), source.images(PROMPTS[1:], [1])
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=1e-5)


def test_a_bench_knows_images_that_were_sampled_otherwise(stable_diffusion: Path, monkeypatch: Any) -> None:
    def fingerprints(kind: str) -> tuple[str, str]:
        source = Source(load_reference(str(with_scheduler(stable_diffusion, kind))), steps=3)
        new = source.fingerprint()
        with monkeypatch.context() as before:
            before.setattr("dipp_toolkit.experiments.bench.sources.was_sampled_otherwise", lambda _: False)
            return new, source.fingerprint()

    new, old = fingerprints("EulerAncestralDiscreteScheduler")
    assert new != old
    new, old = fingerprints("DPMSolverMultistepScheduler")
    assert new == old, "images of a scheduler without noise are kept"


def test_an_images_noise_follows_from_its_own_initial_noise() -> None:
    noise = torch.randn((3, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    seeds = [generator.initial_seed() for generator in own_generators(noise)]
    assert len(set(seeds)) == 3
    assert [generator.initial_seed() for generator in own_generators(noise[[2, 0]])] == [seeds[2], seeds[0]]
    first = torch.randn((4, 8, 8), generator=own_generators(noise)[1])
    torch.testing.assert_close(noises_of(noise, 1)[0][1], first, rtol=0, atol=0)


def test_the_class_of_the_index_is_the_scheduler(stable_diffusion: Path) -> None:
    """Its configuration may have been written by another one, whose settings are kept and not heeded."""
    folder = with_scheduler(stable_diffusion, "PNDMScheduler")
    path = folder / "scheduler" / "scheduler_config.json"
    config = {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True, "beta_schedule": "scaled_linear"}
    path.write_text(json.dumps(config))
    heeded = heeded_scheduler_config(folder, family_of(folder))
    assert heeded["_class_name"] == "PNDMScheduler"
    t = torch.tensor([1.0])
    expected = PNDMScheduler(beta_schedule="scaled_linear").alphas_cumprod[-1:].sqrt()
    for schedule in (schedule_from_config(heeded), load_reference(str(folder)).denoiser.schedule):
        torch.testing.assert_close(schedule.alpha(t), expected)
    assert DDIMScheduler(beta_schedule="scaled_linear", rescale_betas_zero_snr=True).alphas_cumprod[-1] == 0


def test_settings_that_a_configuration_leaves_out_are_the_classes_own() -> None:
    schedule = schedule_from_config({"_class_name": "LCMScheduler"})
    torch.testing.assert_close(schedule.alpha(torch.ones(1)), LCMScheduler().alphas_cumprod[-1:].sqrt())
    assert class_config({"_class_name": "LCMScheduler", "use_flow_sigmas": True}).get("use_flow_sigmas") is None
    assert class_config({"beta_schedule": "linear"}) == {"beta_schedule": "linear"}


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("EDMEulerScheduler", {}, ["EDMEulerScheduler", "sigma_data"]),
        ("DPMSolverSDEScheduler", {}, ["DPMSolverSDEScheduler", "sde-dpmsolver++"]),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous"}, ["timestep_type='continuous'"]),
        ("EulerAncestralDiscreteScheduler", {"prediction_type": "sample"}, ["EulerAncestralDiscreteScheduler"]),
        ("DDIMScheduler", {"timestep_spacing": "spread"}, ["DDIMScheduler", "spread is not supported"]),
        ("UniPCMultistepScheduler", {"use_dynamic_shifting": True}, ["UniPCMultistepScheduler", "`mu` must be passed"]),
    ],
)
def test_a_scheduler_that_cannot_be_used_is_refused_before_a_training(
    stable_diffusion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, settings: dict, words: list
) -> None:
    folder = with_scheduler(stable_diffusion, kind, **settings)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    command = ["distill", "--reference", str(folder), "--prompts", str(tmp_path / "prompts.txt"), "--dry-run"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert all(word in said for word in words), said
    with pytest.raises(RequestError, match=kind):
        check_pipeline_folder(folder)


def test_steps_that_a_scheduler_cannot_take_are_refused_before_a_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = with_scheduler(
        write_twin("StableDiffusion3Pipeline", tmp_path / "twin"), "FlowMatchEulerDiscreteScheduler", shift_terminal=0.1
    )
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    command = ["distill", "--reference", str(folder), "--prompts", str(tmp_path / "prompts.txt"), "--steps", "1"]
    command += ["--out", str(tmp_path / "run"), "--set", "eval_count=2", "--device", "cpu"]
    assert main([*command, "--set", "reference_steps=2", "--dry-run"]) == 0
    capsys.readouterr()
    for more in (["--dry-run"], []):
        assert main([*command, "--set", "reference_steps=1", *more]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "FlowMatchEulerDiscreteScheduler does not work" in said
        assert "in 1 step: its times are no numbers" in said


def test_a_generator_of_two_steps_can_decode(stable_diffusion: Path) -> None:
    """Its scheduler has two steps, and is asked for no more."""
    folder = with_scheduler(stable_diffusion, "LCMScheduler", original_inference_steps=2, timestep_scaling=10000.0)
    check_pipeline_folder(folder)


def test_a_family_without_a_stock_call_is_sampled_with_what_its_scheduler_has(stable_diffusion: Path) -> None:
    class Plain:
        def __init__(self, family: Any):
            self.family = family

        def __getattr__(self, name: str) -> Any:
            if name == "stock_call":
                raise AttributeError(name)
            return getattr(self.family, name)

    reference = load_reference(str(with_scheduler(stable_diffusion, "EulerDiscreteScheduler")))
    assert isinstance(reference, DiffusersReference)
    condition, noise = reference.encode(PROMPTS), torch.randn(2, *reference.latent_shape)
    expected = reference.sample(condition, noise, 3, 1.0)
    reference.family = Plain(reference.family)
    torch.testing.assert_close(reference.sample(condition, noise, 3, 1.0), expected, rtol=0, atol=0)


def test_loading_a_generator_of_trailing_spacing_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its read-out is asked of diffusers, which tells of settings that a scheduler does not know."""
    folder = write_twin("StableDiffusionPipeline", tmp_path / "twin")
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    with_scheduler(folder, "EulerDiscreteScheduler", **betas, timestep_spacing="trailing")
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    assert load_generator(str(folder)).input_scale == "sigma"  # type: ignore[attr-defined]
    assert caplog.messages == []
