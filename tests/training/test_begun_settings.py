"""Runs that an earlier version began go on as they were begun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import DiffusionPipeline, EulerDiscreteScheduler
from safetensors.torch import load_file

from dipp_cli.actions.settings import gather
from dipp_cli.app import main
from dipp_toolkit.config import TrainConfig
from dipp_toolkit.errors import CheckpointError
from dipp_toolkit.models.files.folders import read_scheduler_config
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.training.run_state.run_folder import RunFolder
from dipp_toolkit.training.run_state.start_settings import as_begun, read_begun_settings
from dipp_toolkit.training.setup.assembly import assemble
from dipp_toolkit.training.setup.resolve import resolve


def begun(folder: Path, **settings: Any) -> Path:
    """A run folder as it was before there were the settings `input_scale` and `parts`."""
    (folder / "samples").mkdir(parents=True)
    values = TrainConfig(reference="sd15", prompts="emoji-train", **settings).model_dump(mode="json")
    del values["input_scale"], values["parts"]
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.mark.parametrize(
    ("generator", "scale"),
    [
        ("pixart-onestep", "unit"),  # its name means sigma z now
        ("sd-turbo", "unit"),  # and so does this one's folder
        (None, "unit"),
        ("some/folder", "unit"),
        ("emoji-onestep", None),  # it cannot be told
        ("./mine.py:Generator", None),
    ],
)
def test_an_earlier_run_goes_on_with_z(generator: str | None, scale: str | None, tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", generator=generator, readout=0.4)
    assert read_begun_settings(folder / "config.yaml").get("input_scale") == scale
    saved = RunFolder(folder).saved_config()
    assert (saved.readout, saved.input_scale) == (0.4, scale)


def test_it_can_be_resumed_and_repeated_and_a_new_run_has_what_its_name_means(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", generator="pixart-onestep", readout=0.4)
    resumed = gather({"out": str(folder)}, [], resume="always")
    assert (resumed.readout, resumed.input_scale) == (0.4, "unit")
    unsaid = resumed.model_copy(update={"input_scale": None})  # as from Python, of a folder that says nothing itself
    for config in (resumed, unsaid):
        assert RunFolder(folder).check_resumable(config) == 0
        assert as_begun(config, RunFolder(folder).saved_config()).input_scale == "unit"
    with pytest.raises(CheckpointError, match="input_scale was unit and is sigma"):
        RunFolder(folder).check_resumable(resumed.model_copy(update={"input_scale": "sigma"}))
    again = gather({}, [], file=folder / "config.yaml")
    assert (resolve(again).readout, resolve(again).input_scale) == (0.4, "unit")
    fresh = resolve(TrainConfig(generator="pixart-onestep", prompts="emoji-train"))
    assert (fresh.readout, fresh.input_scale) == (440 / 999, "sigma")


def test_an_earlier_run_goes_on_with_the_parts_of_its_reference(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", generator="some/folder")
    saved = RunFolder(folder).saved_config()
    asked = TrainConfig(generator="some/folder", reference="sd15", prompts="emoji-train", input_scale="unit")
    assert (saved.parts, asked.parts, as_begun(asked, saved).parts) == ("reference", "same", "reference")
    assert RunFolder(folder).check_resumable(asked) == 0
    with pytest.raises(CheckpointError, match="parts was reference and is generator"):
        RunFolder(folder).check_resumable(asked.model_copy(update={"parts": "generator"}))
    assert read_begun_settings(begun(tmp_path / "distilled") / "config.yaml").get("parts") is None


def test_several_steps_of_a_name_that_means_sigma_start_from_z() -> None:
    cases = [("sd15-onestep", 4, "unit"), ("sd15-onestep", 1, "sigma"), ("sdxl-dmd2", 1, "unit"), ("sd-turbo", 1, None)]
    for generator, steps, scale in cases:
        config = resolve(TrainConfig(generator=generator, prompts="emoji-train", generator_steps=steps))
        assert config.input_scale == scale
    asked = TrainConfig(generator="sd15-onestep", prompts="emoji-train", generator_steps=4, input_scale="sigma")
    assert resolve(asked).input_scale == "sigma", "what is said is taken, and refused where it cannot be"


@pytest.mark.parametrize(("scale", "expected"), [(None, "unit"), ("sigma", "sigma")])
def test_a_distillation_starts_from_its_references_network(scale: Any, expected: str, tmp_path: Path) -> None:
    folder = str(write_twin("StableDiffusionXLPipeline", tmp_path / "twin"))
    (tmp_path / "prompts.txt").write_text("a red cat\n")
    config = TrainConfig(
        reference=folder, prompts=str(tmp_path / "prompts.txt"), prompt_cache=tmp_path / "cache", device="cpu",
        readout=0.4, input_scale=scale, batch_size=1, eval_count=1,
    )  # fmt: skip
    assert assemble(resolve(config)).generator.input_scale == expected  # type: ignore[attr-defined]


@pytest.mark.exhaustive
def test_a_run_of_a_turbo_that_began_with_z_ends_as_it_would_have(tmp_path: Path) -> None:
    twin = DiffusionPipeline.from_pretrained(write_twin("StableDiffusionPipeline", tmp_path / "twin"))
    twin.scheduler = EulerDiscreteScheduler.from_config(twin.scheduler.config, timestep_spacing="trailing")
    twin.save_pretrained(tmp_path / "turbo")
    (tmp_path / "prompts.txt").write_text("a red cat\nthe blue sea\n")
    words = [
        "train", "--generator", str(tmp_path / "turbo"), "--reference", str(tmp_path / "twin"), "--prompts",
        str(tmp_path / "prompts.txt"), "--batch-size", "2", "--device", "cpu", "--set", "learning_rate=1e-3",
        "--set", "eval_count=2", "--set", "reference_steps=2", "--set", "precision=fp32", "--quiet",
        "--set", f"prompt_cache={tmp_path / 'cache'}", "--set", "checkpoint_every=1",
    ]  # fmt: skip
    unit = ["--set", "input_scale=unit"]
    assert main([*words, *unit, "--steps", "2", "--out", str(tmp_path / "whole")]) == 0
    assert main([*words, *unit, "--steps", "1", "--out", str(tmp_path / "parts")]) == 0
    assert main([*words, "--steps", "2", "--out", str(tmp_path / "now")]) == 0
    config = tmp_path / "parts" / "config.yaml"
    config.write_text(config.read_text().replace("input_scale: unit\n", ""))
    assert main(["train", "--resume", "--out", str(tmp_path / "parts"), "--steps", "2", "--quiet"]) == 0
    assert "input_scale: unit\n" in config.read_text()
    weights = [
        load_file(tmp_path / run / "final" / "unet" / "diffusion_pytorch_model.safetensors")["conv_out.weight"]
        for run in ("whole", "parts", "now")
    ]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    schedulers = [read_scheduler_config(tmp_path / run / "final")["_class_name"] for run in ("parts", "now")]
    assert schedulers == ["DDIMScheduler", "EulerDiscreteScheduler"]
