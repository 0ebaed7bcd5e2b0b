"""Z-Image folders as references and generators, against plain diffusers on the very same folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ZImagePipeline
from diffusers.pipelines.z_image import pipeline_z_image
from torch import Tensor

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.blueprints import PipelineBlueprint, find_pipeline, parameter_count
from dipp_toolkit.models.components import empty_component
from dipp_toolkit.models.files.folders import family_of
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.start_weights.lora import layers_of
from dipp_toolkit.models.start_weights.lora_file import LoraFile
from dipp_toolkit.models.start_weights.source import parse_source
from dipp_toolkit.planning.dry_run import dry, faked
from dipp_toolkit.registry import get_registry
from dipp_toolkit.training.publish import call_arguments
from dipp_toolkit.utils.json_files import read_json
from dipp_z_image.family import ZImageFamily, write_z_image_twin
from lora_files import kohya, random_pairs, write
from plain import pipeline_of

PROMPTS = ("a red cat", "the big blue sea, and on it a small yellow house, xyz", "a car")
LENGTHS = [22, 39, 21]
"""Of these in tokens: the network pads the second to 64 and the others to 32."""

TEMPLATE = 19
"""Tokens of the chat template in the twin's tokenizer, which spells its words."""


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_z_image_twin(tmp_path_factory.mktemp("z-image") / "twin")


@pytest.fixture(scope="module")
def reference(twin: Path) -> DiffusersReference:
    return DiffusersReference.load(str(twin))


def stock(pipeline: Any, noise: Tensor, **call: Any) -> Tensor:
    """Latents by the stock pipeline's own call, at the twin's size; it writes into the list of prompts."""
    arguments = {"height": 16, "width": 16, **call}
    latents: Tensor = pipeline(list(PROMPTS), latents=noise, output_type="latent", **arguments).images
    return latents


@pytest.mark.parametrize(("options", "guidance"), [({"shift": 3.0}, 1.0), ({"dynamic_shifting": True}, 4.0)], ids=str)
def test_sampling_equals_the_stock_pipeline(options: dict[str, Any], guidance: float, tmp_path: Path) -> None:
    folder = write_z_image_twin(tmp_path / "twin", **options)
    reference = DiffusersReference.load(str(folder))
    noise = fixed_noise(len(PROMPTS), reference.latent_shape, 3)
    ours = reference.sample(reference.encode(PROMPTS), noise, 4, guidance)
    theirs = stock(pipeline_of(folder), noise, num_inference_steps=4, guidance_scale=guidance - 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_network_is_given_what_stock_gives_it(reference: DiffusersReference, twin: Path) -> None:
    pipeline, given = pipeline_of(twin), []
    pipeline.transformer.register_forward_pre_hook(lambda _, arguments: given.append(arguments))
    noise = fixed_noise(len(PROMPTS), reference.latent_shape, 3)
    stock(pipeline, noise, num_inference_steps=2, guidance_scale=0.0)
    hook = reference.network.register_forward_pre_hook(lambda _, arguments: given.append(arguments))
    reference.sample(reference.encode(PROMPTS), noise, 2, 1.0)
    hook.remove()
    assert len(given) == 4
    for theirs, ours in zip(given[:2], given[2:], strict=True):
        for their, our in zip(theirs, ours, strict=True):
            torch.testing.assert_close(our, their)
    assert [len(row) for row in given[0][2]] == LENGTHS


def test_conditions_are_rows_of_one_length_with_zeros_behind_a_prompt(
    reference: DiffusersReference, twin: Path
) -> None:
    features, _ = pipeline_of(twin).encode_prompt(list(PROMPTS), do_classifier_free_guidance=False)
    condition = reference.encode(PROMPTS)
    rows, mask = condition.tensors["encoder_hidden_states"], condition.tensors["encoder_attention_mask"]
    assert rows.shape == (3, 512, 16) and mask.shape == (3, 512)
    for row, kept, own in zip(rows, mask, features, strict=True):
        assert kept.tolist() == [1] * len(own) + [0] * (512 - len(own))
        torch.testing.assert_close(row[: len(own)], own)
        assert not row[len(own) :].any()


def test_what_stands_behind_a_prompt_changes_nothing(reference: DiffusersReference) -> None:
    condition, x_t = reference.encode(PROMPTS), fixed_noise(3, reference.latent_shape, 1)
    t = torch.full((3,), 0.5)
    with torch.no_grad():
        together = reference.denoiser.predict_x0(x_t, t, condition)
        mask = condition.tensors["encoder_attention_mask"]
        other = condition.tensors["encoder_hidden_states"] + (1 - mask)[..., None]
        filled = Condition(PROMPTS, {"encoder_hidden_states": other, "encoder_attention_mask": mask})
        torch.testing.assert_close(reference.denoiser.predict_x0(x_t, t, filled), together)


def test_stock_without_guidance_is_asked_for_0(twin: Path) -> None:
    expected = {"num_inference_steps": 8, "guidance_scale": 0.0, "height": 16, "width": 16}
    assert call_arguments(twin, 8) == expected


def test_gradients_reach_every_weight_and_the_sample(reference: DiffusersReference) -> None:
    denoiser = reference.denoiser.trainable_copy()
    denoiser.network.enable_gradient_checkpointing()  # type: ignore[operator]
    x_t = fixed_noise(3, reference.latent_shape, 2).requires_grad_(True)
    denoiser.predict_x0(x_t, torch.full((3,), 0.7), reference.encode(PROMPTS)).square().mean().backward()
    assert x_t.grad is not None and x_t.grad.abs().min() > 0
    still = {name for name, parameter in denoiser.network.named_parameters() if parameter.grad is None}
    assert not still


def test_half_precision_is_near(twin: Path, reference: DiffusersReference) -> None:
    half = DiffusersReference.load(str(twin), torch.bfloat16)
    x_t, t = fixed_noise(3, reference.latent_shape, 2), torch.full((3,), 0.7)
    with torch.no_grad():
        ours = half.denoiser.predict_x0(x_t, t, half.encode(PROMPTS))
        exact = reference.denoiser.predict_x0(x_t, t, reference.encode(PROMPTS))
    assert ours.dtype == torch.float32
    assert (ours - exact).norm() < 0.02 * exact.norm()


def test_a_prompt_is_counted_in_its_chat_template(reference: DiffusersReference) -> None:
    fitting = "x" * (512 - TEMPLATE)
    assert reference.encode([fitting]).tensors["encoder_attention_mask"].all()
    with pytest.raises(RequestError, match=r"513.*512"):
        reference.encode([fitting + "x"])


def test_a_dry_run_reads_prompts_as_long_as_can_be(twin: Path) -> None:
    blueprint = PipelineBlueprint(twin, "nowhere")
    with torch.device("meta"):
        network = blueprint.build("transformer")
    seen: list[Any] = []
    network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    with dry():
        faked(network)
        family, config = ZImageFamily(), read_json(twin / "transformer" / "config.json")
        x_t = torch.zeros(2, *blueprint.latent_shape)
        output = family.forward(network, x_t, torch.full((2,), 500.0), family.blank(config, 2))
        assert output.shape == x_t.shape
    assert [tuple(row.shape) for row in seen[0][2]] == [(512, 16)] * 2


@pytest.mark.parametrize(
    ("vae", "side", "arguments"),
    [
        ({}, (128, 128), {}),
        ({"sample_size": 1024}, (128, 128), {}),
        ({"sample_size": (512, 770)}, (64, 96), {"height": 512, "width": 768}),
    ],
)
def test_the_size_is_the_autoencoders_or_the_stock_pipelines(
    vae: dict[str, Any], side: tuple[int, int], arguments: dict[str, int]
) -> None:
    config = {"block_out_channels": [128, 256, 512, 512], **vae}
    assert ZImageFamily().latent_side({}, config) == side
    assert ZImageFamily().call_arguments({}, config) == arguments


def test_other_patches_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "ZImagePipeline"}))
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({"all_patch_size": [1, 4]}))
    with pytest.raises(RequestError, match="patches of 1 and 4 latents"):
        family_of(tmp_path)


def test_a_diffusers_with_other_steps_is_refused(twin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pipeline_z_image, "get_default_z_image_sigmas")
    with pytest.raises(RequestError, match=r"'diffusers>=0\.40'"):
        DiffusersReference.load(str(twin))


@pytest.mark.parametrize(("name", "shift"), [("z-image", 6.0), ("z-image-turbo", 3.0)])
def test_the_published_architecture(name: str, shift: float) -> None:
    blueprint = find_pipeline(name)
    assert blueprint.latent_shape == (16, 128, 128)
    assert blueprint.scheduler_config["shift"] == shift
    with torch.device("meta"):
        counts = {part: parameter_count(blueprint.build(part)) for part in ("transformer", "text_encoder", "vae")}
    # Z-Image-Turbo's float32 transformer is published as 24.6 GB, and the text encoder, in half precision, as 8.05 GB.
    assert counts == {"transformer": 6_154_908_736, "text_encoder": 4_022_468_096, "vae": 83_819_683}


@pytest.mark.parametrize("underscores", [1, 2])
def test_a_lora_in_kohyas_layout_fits_every_layer(underscores: int, tmp_path: Path) -> None:
    """Two underscores are VideoX-Fun's, in which Z-Image-Fun-Lora-Distill is published: projections of all blocks."""
    network = empty_component(find_pipeline("z-image").folder, "transformer")
    pairs = random_pairs(network, 2, r"(layers|refiner)\.\d+\.(attention\.to_[qkv]|feed_forward)")
    assert len(pairs) == 34 * 6

    def layout() -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors, _ = kohya(pairs, 1.0, "transformer")
        return {key.replace("unet_", "unet" + "_" * underscores, 1): tensor for key, tensor in tensors.items()}, {}

    path = write(tmp_path / "lora.safetensors", layout)
    layers = layers_of(LoraFile.find(parse_source(str(path))), network, ZImagePipeline, "transformer")
    assert layers.keys() == pairs.keys()
    for layer, (down, up) in pairs.items():
        assert torch.equal(layers[layer][0], down), layer
        assert torch.equal(layers[layer][1], 0.5 * up), layer


def test_generators_of_a_few_steps_are_asked_for_their_own() -> None:
    entries = get_registry().entries["generator"]
    for name, steps in (("z-image-fun-distill", 8), ("z-image-fun-distill-4", 4)):
        model = entries[name].factory
        assert model.hub == "alibaba-pai/Z-Image-Fun-Lora-Distill" and model.pipeline == "Tongyi-MAI/Z-Image"
        assert f"-{steps}-Steps-" in model.lora[0] and entries[name].defaults["generator_steps"] == steps
    assert entries["z-image-turbo"].defaults["generator_steps"] == 8
    assert "generator_steps" not in entries["z-image-onestep"].defaults
