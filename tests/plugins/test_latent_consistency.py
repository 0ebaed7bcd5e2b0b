"""Latent consistency models: folders of their class, their names, their times, and the guidance that they are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dipp_cli.app import main
from dipp_toolkit import RequestError, load_reference
from dipp_toolkit.config import make_config
from dipp_toolkit.experiments.acceptance.plain_pipeline import plain_image, plain_pipeline
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.guidance_embedding import told_guidance
from dipp_toolkit.models.published import PublishedGenerator
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.registry import get_registry
from dipp_toolkit.training.publish import call_arguments
from dipp_toolkit.training.setup.preflight import Parts, check_networks
from dipp_toolkit.utils.step_settings import Stepping
from tiny import PROMPTS

LCM, SD = "LatentConsistencyModelPipeline", "StableDiffusionPipeline"
TIMES = [999, 759, 499, 259]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_twin(LCM, tmp_path_factory.mktemp("lcm") / "twin")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_twin(SD, tmp_path_factory.mktemp("sd") / "twin")


def test_a_twin_has_the_parts_of_its_teachers(folder: Path, teacher: Path) -> None:
    for part in ("text_encoder", "vae"):
        ours, theirs = (load_file(next((place / part).glob("*.safetensors"))) for place in (folder, teacher))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("told", [None, 2.0])
@pytest.mark.parametrize(("steps", "times"), [(1, "even"), (2, "even"), (4, "stock"), (3, (900.0, 500.0, 30.0))])
def test_an_export_draws_the_generators_image_in_plain_diffusers(
    folder: Path, tmp_path: Path, told: float | None, steps: int, times: Any
) -> None:
    loaded = DiffusersGenerator.load(str(folder), guidance_embedding=told)
    generator = loaded.in_steps(steps).with_stepping(Stepping("fresh", times))
    generator.check_exportable()
    generator.save_pretrained(final := tmp_path / "final")
    again = DiffusersGenerator.load(str(final))
    assert (again.steps, told_guidance(again.family)) == (steps, told or 8.5)
    if times == "stock":
        assert [round(time * 999) for time in generator.times] == TIMES
    call = call_arguments(final, steps)
    assert call["guidance_scale"] == (told or 8.5)
    reference = load_reference(str(folder))
    noise, condition = fixed_noise(2, generator.latent_shape, 5), reference.encode(PROMPTS[:2])
    with torch.no_grad():
        ours = generator.generate(noise, condition)
        torch.testing.assert_close(again.generate(noise, condition), ours, rtol=0, atol=1e-5)
        images = reference.decode(ours)
        other = DiffusersGenerator.load(str(final), guidance_embedding=1.0)
        assert float((other.generate(noise, condition) - ours).abs().max()) > 1e-4, "the guidance is heeded"
    pipeline = plain_pipeline(final, torch.float32, torch.device("cpu"))
    theirs = [plain_image(pipeline, final, prompt, noise[[row]], call) for row, prompt in enumerate(PROMPTS[:2])]
    assert float((images - torch.cat(theirs)).abs().max()) < 1e-5


def test_it_is_no_reference_and_takes_no_deterministic_steps(folder: Path, teacher: Path) -> None:
    with pytest.raises(RequestError, match=r"consistency model's.*StableDiffusionPipeline"):
        check_networks(make_config({"generator": str(teacher), "reference": str(folder)}), Parts())
    check_networks(make_config({"generator": str(folder), "reference": str(teacher), "guidance_embedding": 4}), Parts())
    generator = DiffusersGenerator.load(str(folder)).in_steps(2).with_stepping(Stepping("none"))
    with pytest.raises(RequestError, match="cannot be told original_inference_steps"):
        generator.check_exportable()


def test_a_unet_without_guidance_is_refused(teacher: Path, tmp_path: Path) -> None:
    shutil.copytree(teacher, tmp_path / "twin")
    index = json.loads((tmp_path / "twin" / "model_index.json").read_text())
    (tmp_path / "twin" / "model_index.json").write_text(json.dumps(index | {"_class_name": LCM}))
    with pytest.raises(RequestError, match=r"takes no guidance scale \(time_cond_proj_dim\)"):
        DiffusersGenerator.load(str(tmp_path / "twin"))


@pytest.mark.parametrize("name", ["lcm-dreamshaper", "lcm-lora-sd15", "lcm-lora-sdxl"])
def test_names_take_lcms_four_steps(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = get_registry().entries["generator"][name]
    record = entry.factory
    assert isinstance(record, PublishedGenerator)
    assert entry.defaults["generator_steps"] == 4 and entry.defaults["generator_times"] == "stock"
    made = record.as_made(DiffusersGenerator.load(str(record.configs)))
    assert [round(time * 999) for time in made.times] == TIMES
    assert made.latent_shape[-1] == {"lcm-dreamshaper": 96, "lcm-lora-sd15": 64, "lcm-lora-sdxl": 128}[name]
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    words = ["train", "--generator", name, "--prompts", str(tmp_path / "prompts.txt"), "--dry-run"]
    assert main(words) == 0, capsys.readouterr().err
