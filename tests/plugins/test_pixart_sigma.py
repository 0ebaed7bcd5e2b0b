"""PixArt-Sigma folders as references and generators, against plain diffusers on the very same folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, EulerDiscreteScheduler
from diffusers.pipelines.pixart_alpha.pipeline_pixart_sigma import (
    ASPECT_RATIO_256_BIN,
    ASPECT_RATIO_1024_BIN,
    ASPECT_RATIO_2048_BIN,
)
from torch import Tensor

from dipp_pixart.family import PixArtFamily, PixArtSigmaFamily, write_pixart_sigma_twin
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.blueprints import find_pipeline, parameter_count
from dipp_toolkit.models.files.folders import family_of
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.reference import DiffusersReference
from plain import pipeline_of
from tiny import PROMPTS

LONG = "a red cat " * 50
"""More than PixArt-alpha's 120 tokens, fewer than 300."""


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pixart_sigma_twin(tmp_path_factory.mktemp("sigma") / "twin")


def stock(folder: Path, noise: Tensor, prompts: list[str], **call: Any) -> Tensor:
    """Latents by the stock pipeline's own call, with its own number of tokens."""
    pipeline = pipeline_of(folder)
    latents: Tensor = pipeline(
        prompts, latents=noise, output_type="latent", use_resolution_binning=False, **call
    ).images
    return latents


@pytest.mark.parametrize("guidance", [1.0, 4.5])
def test_sampling_equals_the_stock_pipeline_with_300_tokens(twin: Path, guidance: float, noise: Tensor) -> None:
    reference = DiffusersReference.load(str(twin))
    prompts = [LONG, PROMPTS[0]]
    assert reference.encode(prompts).tensors["encoder_hidden_states"].shape[1] == 300
    ours = reference.sample(reference.encode(prompts), noise[:2], 4, guidance)
    theirs = stock(twin, noise[:2], prompts, num_inference_steps=4, guidance_scale=guidance)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    shorter = stock(twin, noise[:2], [LONG[:-10], PROMPTS[0]], num_inference_steps=4, guidance_scale=guidance)
    assert (shorter[0] - theirs[0]).abs().max() > 1e-4  # the end of a long prompt is read


@pytest.mark.parametrize("scheduler", [None, EulerDiscreteScheduler])
def test_one_step_is_sampled_and_exported_as_stock(
    twin: Path, scheduler: type | None, tmp_path: Path, noise: Tensor
) -> None:
    folder = twin
    if scheduler is not None:  # this class, unlike PixArt-alpha's, takes the new sample of a single step
        pipeline = DiffusionPipeline.from_pretrained(twin)
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
        folder = tmp_path / "euler"
        pipeline.save_pretrained(folder)
    reference = DiffusersReference.load(str(folder))
    condition = reference.encode(PROMPTS)
    one = {"num_inference_steps": 1, "guidance_scale": 1.0}
    theirs = stock(folder, noise, list(PROMPTS), **one)
    torch.testing.assert_close(reference.sample(condition, noise, 1, 1.0), theirs, rtol=1e-4, atol=1e-4)

    generator = DiffusersGenerator.from_reference(reference, 440 / 999, "sigma")
    with torch.no_grad():
        ours = generator.generate(noise, condition)
    generator.save_pretrained(tmp_path / "final")
    assert json.loads((tmp_path / "final" / "model_index.json").read_text())["_class_name"] == "PixArtSigmaPipeline"
    torch.testing.assert_close(stock(tmp_path / "final", noise, list(PROMPTS), **one), ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("side", "ratios"), [(32, ASPECT_RATIO_256_BIN), (128, ASPECT_RATIO_1024_BIN), (8, None)])
def test_sizes_that_the_pipeline_rounds_to(side: int, ratios: dict[str, list[float]] | None) -> None:
    arguments = PixArtSigmaFamily().call_arguments({"sample_size": side}, {"block_out_channels": [1] * 4})
    assert arguments == ({"use_resolution_binning": False} if ratios is None else {})
    if ratios is not None:
        assert ratios["1.0"] == [8.0 * side] * 2


def test_2048_pixels_are_a_size_of_this_class_alone() -> None:
    assert ASPECT_RATIO_2048_BIN["1.0"] == [2048.0, 2048.0]
    network, vae = {"sample_size": 256}, {"block_out_channels": [1] * 4}
    assert PixArtSigmaFamily().call_arguments(network, vae) == {}
    assert PixArtFamily().call_arguments(network, vae) == {"use_resolution_binning": False}


def test_a_transformer_that_takes_sizes_is_refused(twin: Path, tmp_path: Path) -> None:
    for part in ("transformer", "tokenizer"):
        (tmp_path / part).symlink_to(twin / part)
    (tmp_path / "model_index.json").write_text((twin / "model_index.json").read_text())
    assert isinstance(family_of(tmp_path), PixArtSigmaFamily)
    (tmp_path / "transformer").unlink()
    (tmp_path / "transformer").mkdir()
    for config in ({"sample_size": 128}, {"sample_size": 128, "use_additional_conditions": True}):
        (tmp_path / "transformer" / "config.json").write_text(json.dumps(config))
        with pytest.raises(RequestError, match="Expected use_additional_conditions: false"):
            family_of(tmp_path)


def test_the_published_architecture() -> None:
    blueprint = find_pipeline("pixart-sigma")
    assert blueprint.latent_shape == (4, 128, 128)
    with torch.device("meta"):
        counts = {part: parameter_count(blueprint.build(part)) for part in ("transformer", "vae")}
    assert counts == {"transformer": 610_856_096, "vae": 83_653_863}
    assert find_pipeline("pixart-sigma-onestep").hub == blueprint.hub
