"""Lumina-Image 2.0 folders as references and generators, against plain diffusers on the very same folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_lumina.family import Lumina2Call, LuminaFamily, write_lumina_twin
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.diffusion.schedules import FlowMatching
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.blueprints import PipelineBlueprint, find_pipeline, parameter_count
from dipp_toolkit.models.files.folders import family_of
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.planning.dry_run import dry, faked
from dipp_toolkit.utils.json_files import read_json
from plain import pipeline_of

PROMPTS = ("a red cat", "the big blue sea, and on it a small yellow house, xyz", "a car")


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lumina_twin(tmp_path_factory.mktemp("lumina") / "twin")


@pytest.fixture(scope="module")
def reference(twin: Path) -> DiffusersReference:
    return DiffusersReference.load(str(twin))


def stock(pipeline: Any, noise: Tensor, **call: Any) -> Tensor:
    """Latents by the stock pipeline's own call."""
    latents: Tensor = pipeline(list(PROMPTS), latents=noise, output_type="latent", **call).images
    return latents


def test_a_schedule_that_is_shifted_by_resolution_is_sampled_as_stock(tmp_path: Path) -> None:
    folder = write_lumina_twin(tmp_path / "twin", dynamic_shifting=True, latent_channels=8)
    reference = DiffusersReference.load(str(folder))
    noise = fixed_noise(len(PROMPTS), reference.latent_shape, 3)
    ours, pipeline = reference.sample(reference.encode(PROMPTS), noise, 3, 4.0), pipeline_of(folder)
    theirs = stock(pipeline, noise, num_inference_steps=3, guidance_scale=4.0)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    schedule = reference.denoiser.schedule
    assert isinstance(schedule, FlowMatching)
    levels = schedule.tau(torch.tensor([1.0, 2 / 3, 1 / 3, 0.0]))
    torch.testing.assert_close(levels, pipeline.scheduler.sigmas)


def test_guidance_keeps_the_length_of_rows(reference: DiffusersReference, twin: Path) -> None:
    noise = fixed_noise(len(PROMPTS), reference.latent_shape, 3)
    call = {"num_inference_steps": 4, "guidance_scale": 4.0}
    kept, plain = (stock(pipeline_of(twin), noise, cfg_normalization=kept, **call) for kept in (True, False))
    assert (kept - plain).abs().max() > 1e-2
    given, empty = torch.randn(2, 3, 4, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Lumina2Call().guided(given, empty, 3.0).norm(dim=-1), given.norm(dim=-1))


def test_conditions_are_what_stock_encodes(reference: DiffusersReference, twin: Path) -> None:
    features, mask, empty, empty_mask = pipeline_of(twin).encode_prompt(list(PROMPTS))
    condition, null = reference.encode(PROMPTS), reference.encode([""])
    for given, rows, kept in ((condition, features, mask), (null, empty[:1], empty_mask[:1])):
        assert torch.equal(given.tensors["encoder_attention_mask"], kept)
        torch.testing.assert_close(given.tensors["encoder_hidden_states"], rows * kept[..., None])
    assert null.tensors["encoder_attention_mask"].sum() == 1  # the start alone, without a system prompt
    assert mask.sum(1).unique().numel() == 3


def test_what_stands_behind_a_prompt_changes_nothing(reference: DiffusersReference) -> None:
    condition, x_t = reference.encode(PROMPTS), fixed_noise(3, reference.latent_shape, 1)
    t = torch.full((3,), 0.5)
    with torch.no_grad():
        together = reference.denoiser.predict_x0(x_t, t, condition)
        mask = condition.tensors["encoder_attention_mask"]
        other = condition.tensors["encoder_hidden_states"] + (1 - mask)[..., None]
        filled = Condition(PROMPTS, {"encoder_hidden_states": other, "encoder_attention_mask": mask})
        torch.testing.assert_close(reference.denoiser.predict_x0(x_t, t, filled), together)


def test_gradients_reach_every_weight_and_the_sample(reference: DiffusersReference) -> None:
    denoiser = reference.denoiser.trainable_copy()
    denoiser.network.enable_gradient_checkpointing()  # type: ignore[operator]
    x_t = fixed_noise(3, reference.latent_shape, 2).requires_grad_(True)
    denoiser.predict_x0(x_t, torch.full((3,), 0.7), reference.encode(PROMPTS)).square().mean().backward()
    assert x_t.grad is not None and x_t.grad.abs().min() > 0
    assert not {name for name, parameter in denoiser.network.named_parameters() if parameter.grad is None}


def test_half_precision_is_near(twin: Path, reference: DiffusersReference) -> None:
    half = DiffusersReference.load(str(twin), torch.bfloat16)
    x_t, t = fixed_noise(3, reference.latent_shape, 2), torch.full((3,), 0.7)
    with torch.no_grad():
        ours = half.denoiser.predict_x0(x_t, t, half.encode(PROMPTS))
        exact = reference.denoiser.predict_x0(x_t, t, reference.encode(PROMPTS))
    assert ours.dtype == torch.float32
    assert (ours - exact).norm() < 0.02 * exact.norm()


def test_a_prompt_is_counted_behind_the_system_prompt(reference: DiffusersReference) -> None:
    before = int(reference.encode(["x"]).tensors["encoder_attention_mask"].sum()) - 1
    fitting = "x" * (256 - before)
    assert reference.encode([fitting]).tensors["encoder_attention_mask"].all()
    with pytest.raises(RequestError, match=r"257.*256"):
        reference.encode([fitting + "x"])


def test_a_dry_run_reads_prompts_as_long_as_can_be(twin: Path) -> None:
    blueprint = PipelineBlueprint(twin, "nowhere")
    with torch.device("meta"):
        network: Any = blueprint.build("transformer")
    seen: list[Tensor] = []
    network.layers[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    with dry():
        faked(network)
        family, config = LuminaFamily(), read_json(twin / "transformer" / "config.json")
        x_t = torch.zeros(2, *blueprint.latent_shape)
        output = family.forward(network, x_t, torch.full((2,), 500.0), family.blank(config, 2))
        assert output.shape == x_t.shape
    assert [tuple(rows.shape) for rows in seen] == [(2, 256 + 16, 32)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sample_size": 9}, "sample_size 9"),
        ({"sample_size": [8, 16]}, "draws only squares"),
        ({"sample_size": 8, "patch_size": 4}, "patch_size 4"),
        ({"sample_size": 8, "axes_lens": [256, 64, 64]}, "places for 256 tokens"),
    ],
)
def test_what_the_stock_pipeline_cannot_draw_is_refused(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "Lumina2Pipeline"}))
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(config))
    with pytest.raises(RequestError, match=message):
        family_of(tmp_path)


def test_the_published_architecture() -> None:
    blueprint = find_pipeline("lumina2")
    assert blueprint.latent_shape == (16, 128, 128)
    assert blueprint.scheduler_config["shift"] == 6.0
    with torch.device("meta"):
        counts = {part: parameter_count(blueprint.build(part)) for part in ("transformer", "text_encoder", "vae")}
    # The float32 transformer is published as files of 9.96 GB and 482 MB.
    assert counts == {"transformer": 2_609_769_152, "text_encoder": 2_614_341_888, "vae": 83_819_683}
