"""HunyuanDiT folders as references and generators, against plain diffusers on the very same folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_hunyuan_dit.family import BINNED, HunyuanDiTFamily, write_hunyuan_dit_twin
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.blueprints import find_pipeline, parameter_count
from dipp_toolkit.models.files.folders import family_of
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.utils.reproducibility import own_generators
from plain import pipeline_of
from tiny import PROMPTS

LONG = "a red cat " * 30
"""More than CLIP's 77 tokens, fewer than mT5's 256."""


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """By whether the transformer takes an image's size: versions 1.1 and 1.2."""
    root = tmp_path_factory.mktemp("hunyuan")
    return {takes: write_hunyuan_dit_twin(root / str(takes), takes_size=takes) for takes in (False, True)}


def stock(folder: Path, noise: Tensor, prompts: list[str], **call: Any) -> Tensor:
    """Latents by the stock pipeline's own call; its scheduler draws noise in every step."""
    pipeline = pipeline_of(folder)
    latents: Tensor = pipeline(
        prompts, latents=noise, generator=own_generators(noise), output_type="latent", use_resolution_binning=False,
        **call,
    ).images  # fmt: skip
    return latents


@pytest.mark.parametrize("takes_size", [False, True])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_sampling_equals_the_stock_pipeline(
    twins: dict[bool, Path], takes_size: bool, guidance: float, noise: Tensor
) -> None:
    reference, prompts = DiffusersReference.load(str(twins[takes_size])), [LONG, PROMPTS[0]]
    assert reference.image_size == (64, 64)
    condition = reference.encode(prompts)
    assert ("image_meta_size" in condition.tensors) == takes_size
    ours = reference.sample(condition, noise[:2], 3, guidance)
    theirs = stock(twins[takes_size], noise[:2], prompts, num_inference_steps=3, guidance_scale=guidance)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (theirs[0] - theirs[1]).abs().max() > 1e-3


def test_mt5_reads_further_than_clip(twins: dict[bool, Path]) -> None:
    encoded = DiffusersReference.load(str(twins[False])).encode([LONG, LONG[:-10]]).tensors
    assert torch.equal(*encoded["encoder_hidden_states"])
    assert not torch.equal(*encoded["encoder_hidden_states_t5"])


def test_the_size_that_is_told_matters(twins: dict[bool, Path], noise: Tensor) -> None:
    reference = DiffusersReference.load(str(twins[True]))
    condition, t = reference.encode(PROMPTS), torch.full((len(noise),), 0.7)
    told = condition.tensors["image_meta_size"]
    assert told.tolist() == [[1024, 1024, 64, 64, 0, 0]] * len(PROMPTS)
    other = HunyuanDiTFamily(takes_size=True).at_size(condition, (64, 128))
    first, second = (reference.denoiser.predict_x0(noise, t, one) for one in (condition, other))
    assert (first - second).abs().max() > 1e-4


def test_padding_of_clip_is_zeros_and_that_of_mt5_is_pooled(twins: dict[bool, Path], noise: Tensor) -> None:
    reference = DiffusersReference.load(str(twins[False]))
    condition = reference.encode(PROMPTS)
    hidden, mask = (condition.tensors[name] for name in ("encoder_hidden_states", "text_embedding_mask"))
    assert hidden.shape[:2] == (len(PROMPTS), 77) and hidden[mask == 0].abs().max() == 0
    second, mask = (condition.tensors[f"{name}_t5"] for name in ("encoder_hidden_states", "text_embedding_mask"))
    assert second.shape[:2] == (len(PROMPTS), 256) and second[mask == 0].abs().min(-1).values.max() > 0
    emptied = type(condition)(
        condition.prompts, {**condition.tensors, "encoder_hidden_states_t5": second * mask[..., None]}
    )
    t = torch.full((len(noise),), 0.7)
    first, other = (reference.denoiser.predict_x0(noise, t, one) for one in (condition, emptied))
    assert (first - other).abs().max() > 1e-5


@pytest.mark.parametrize("takes_size", [False, True])
def test_one_step_is_exported_as_stock(
    twins: dict[bool, Path], takes_size: bool, tmp_path: Path, noise: Tensor
) -> None:
    reference = DiffusersReference.load(str(twins[takes_size]))
    condition = reference.encode(PROMPTS)
    generator = DiffusersGenerator.from_reference(reference, 545 / 999, "sigma")
    with torch.no_grad():
        ours = generator.generate(noise, condition)
    generator.save_pretrained(tmp_path / "final")
    theirs = stock(tmp_path / "final", noise, list(PROMPTS), num_inference_steps=1, guidance_scale=1.0)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    assert json.loads((tmp_path / "final" / "model_index.json").read_text())["_class_name"] == "HunyuanDiTPipeline"


def test_several_steps_are_exported_as_stock(twins: dict[bool, Path], tmp_path: Path, noise: Tensor) -> None:
    reference = DiffusersReference.load(str(twins[False]))
    generator = DiffusersGenerator.from_reference(reference).in_steps(2)
    with torch.no_grad():
        ours = generator.generate(noise, reference.encode(PROMPTS))
    generator.save_pretrained(tmp_path / "final")
    theirs = stock(tmp_path / "final", noise, list(PROMPTS), num_inference_steps=2, guidance_scale=1.0)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("transformer", {"sample_size": 7}, "the sample_size 7"),
        ("transformer", {"sample_size": [8, 8]}, "draws only squares"),
        ("transformer", {"text_len": 64}, "reads 64 and 256 tokens and predicts a variance"),
        ("transformer", {"learn_sigma": False}, "does not predict a variance"),
        ("vae", {"block_out_channels": [4, 8]}, "makes 2 pixels of a latent's side"),
    ],
)
def test_what_the_stock_pipeline_cannot_draw_is_refused(
    twins: dict[bool, Path], part: str, change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    (tmp_path / "model_index.json").write_text((twins[False] / "model_index.json").read_text())
    for name in ("transformer", "vae"):
        config = json.loads((twins[False] / name / "config.json").read_text())
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config | (change if name == part else {})))
    with pytest.raises(RequestError, match=words.replace("[", r"\[")):
        family_of(tmp_path)


def test_squares_that_the_stock_pipeline_draws_unrounded() -> None:
    from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import SUPPORTED_SHAPE

    assert {height for height, width in SUPPORTED_SHAPE if height == width} == set(BINNED)
    family = HunyuanDiTFamily()
    assert family.call_arguments({"sample_size": 128}, {}) == {}
    assert family.call_arguments({"sample_size": 64}, {}) == {"use_resolution_binning": False}


def test_the_published_architecture() -> None:
    blueprint = find_pipeline("hunyuan-dit")
    assert blueprint.latent_shape == (4, 128, 128)
    assert blueprint.hub == find_pipeline("hunyuan-dit-onestep").hub
    with torch.device("meta"):
        counts = {
            part: parameter_count(blueprint.build(part)) for part in ("transformer", "text_encoder", "text_encoder_2")
        }
    published = {"transformer": 1.5e9, "text_encoder": 0.35e9, "text_encoder_2": 1.6e9}  # its README's table
    assert counts == pytest.approx(published, rel=0.05)
