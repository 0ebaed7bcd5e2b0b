"""Qwen-Image's pipeline: what its twin draws, encodes and leaves is what stock diffusers makes of the same folder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from dipp_qwen_image.guidance import QwenImageStockCall
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.autoencoding import autoencoding_of
from dipp_toolkit.models.blueprints import find_pipeline, parameter_count
from dipp_toolkit.models.decoding import DecodeOptions, reward_decoder
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.lora import AdapterSettings
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.start_weights.lora import fused_weights
from dipp_toolkit.models.stock_call import pack
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.models.weight_sharing import trainable_parameters
from dipp_toolkit.registry import get_registry
from dipp_toolkit.training.publish import call_arguments
from plain import pipeline_of

PROMPTS = ["a red cat", "a big blue house on the sea, with a tree and the sun in a yellow sky"]
ALIKE = ["a red cat", "a big dog"]
"""Two prompts of as many tokens, of which the pipeline makes no mask."""

SIZE = {"height": 16, "width": 16}
TRANSFORMER_BYTES, ENCODER_BYTES = 40_860_802_176, 16_584_333_312
"""Of the tensors in the published files, bfloat16."""


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_twin("QwenImagePipeline", tmp_path_factory.mktemp("twins") / "qwen-image")


@pytest.fixture(scope="module")
def reference(twin: Path) -> DiffusersReference:
    return DiffusersReference.load(str(twin)).to("cpu")


@pytest.fixture(scope="module")
def condition(reference: DiffusersReference) -> Condition:
    return reference.encode(PROMPTS)


@pytest.fixture(scope="module")
def plain(twin: Path) -> Any:
    return pipeline_of(twin)


@pytest.fixture
def noise(reference: DiffusersReference) -> Tensor:
    return fixed_noise(2, reference.latent_shape, 3)


def drawn(pipeline: Any, noise: Tensor, prompts: list[str] = PROMPTS, **call: Any) -> Tensor:
    tokens = pipeline._pack_latents(noise, *noise.shape)
    images: Tensor = pipeline(prompt=prompts, latents=tokens, output_type="pt", **{**SIZE, **call}).images
    return images


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("prompts", [PROMPTS, ALIKE])
def test_sampling_equals_the_stock_pipeline(
    plain: Any, reference: DiffusersReference, noise: Tensor, prompts: list[str], guidance: float
) -> None:
    ours = reference.decode(reference.sample(reference.encode(prompts), noise, 5, guidance))
    against = {"true_cfg_scale": guidance, "negative_prompt": ["", ""]} if guidance > 1 else {}
    theirs = drawn(plain, noise, prompts, num_inference_steps=5, **against)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (theirs[0] - theirs[1]).abs().max() > 1e-3


def test_guidance_turns_a_token_and_keeps_its_length() -> None:
    given, empty = torch.randn(2, 3, 16, 8, 8)
    call = QwenImageStockCall()
    guided, straight = pack(call.guided(given, empty, 4.0)), pack(empty + 4 * (given - empty))
    torch.testing.assert_close(guided.norm(dim=-1), pack(given).norm(dim=-1))
    torch.testing.assert_close(F.cosine_similarity(guided, straight, dim=-1), torch.ones(3, 16))
    assert call.guidance_arguments(4.0, 2) == {"true_cfg_scale": 4.0, "negative_prompt": ["", ""]}
    assert call.guidance_arguments(1.0, 2) == {"true_cfg_scale": 1.0}


def test_embeddings_are_the_stock_pipelines_and_zero_behind(plain: Any, condition: Condition) -> None:
    theirs, mask = plain.encode_prompt(PROMPTS, device="cpu")
    ours, read = condition.tensors["encoder_hidden_states"], condition.tensors["encoder_hidden_states_mask"]
    length = theirs.shape[1]
    assert ours.shape == (2, 512, 16) and read.shape == (2, 512)
    torch.testing.assert_close(ours[:, :length], theirs, rtol=1e-5, atol=1e-5)
    assert torch.equal(read[:, :length], mask) and not read[:, length:].any()
    assert not ours[read == 0].any()


def test_what_stands_before_a_prompt_is_read_and_dropped(reference: DiffusersReference) -> None:
    encoder, family = reference.encoder, reference.family
    pipeline = encoder.load()
    tokenizer, limit = family.token_limit(pipeline)
    assert limit == 512 + 34
    whole = len(tokenizer(family.texts_read(pipeline, ["a red cat"])[0]).input_ids)
    (read,) = reference.encode(["a red cat"]).tensors["encoder_hidden_states_mask"].sum(1).tolist()
    assert read == whole - 34
    long = " ".join(["cat"] * 600)
    assert list(encoder.too_long(["a cat", long])) == [long]


def test_latents_are_standardised_frames_both_ways(plain: Any, reference: DiffusersReference) -> None:
    autoencoding, pixels = autoencoding_of(reference.family), torch.rand(2, 3, 16, 16) * 2 - 1
    encoded = autoencoding.encode(reference.vae, pixels)
    own = plain.vae.encode(pixels[:, :, None]).latent_dist.mean[:, :, 0]
    mean, std = (torch.tensor(plain.vae.config[name])[None, :, None, None] for name in ("latents_mean", "latents_std"))
    torch.testing.assert_close(encoded * std + mean, own)
    decoded = autoencoding.decode(reference.vae, encoded)
    theirs = plain.vae.decode(own[:, :, None], return_dict=False)[0][:, :, 0]
    torch.testing.assert_close(decoded.clamp(-1, 1), theirs, rtol=1e-4, atol=1e-4)


def test_a_saturated_pixel_is_led_back_and_recomputed_alike(reference: DiffusersReference, noise: Tensor) -> None:
    vae = copy.deepcopy(reference.vae)
    vae.decoder.conv_out.weight.data *= 5
    found = []
    for checkpointing in (False, True):
        latents = noise.clone().requires_grad_()
        options = DecodeOptions(checkpointing=checkpointing)
        images = reward_decoder(vae, options, autoencoding_of(reference.family))(latents)
        saturated = (images == 0) | (images == 1)
        (gradient,) = torch.autograd.grad(-((images - 0.5).square() * saturated).sum(), latents)
        found.append((images.detach(), gradient))
        assert saturated.any() and gradient.abs().max() > 0
    torch.testing.assert_close(found[0], found[1])


def test_tiles_are_decoded_and_not_recomputed(reference: DiffusersReference, noise: Tensor) -> None:
    whole = reference.reward_decoder(DecodeOptions())(noise)
    torch.testing.assert_close(reference.reward_decoder(DecodeOptions(tiling=True))(noise), whole)
    with pytest.raises(RequestError, match="AutoencoderKLQwenImage keeps what it made of a tile"):
        reference.reward_decoder(DecodeOptions(tiling=True, checkpointing=True))


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_an_export_draws_the_generators_image_in_plain_diffusers(
    reference: DiffusersReference, condition: Condition, noise: Tensor, tmp_path: Path, mode: str
) -> None:
    generator = DiffusersGenerator.from_reference(reference)
    if mode == "lora":
        generator.adapt(AdapterSettings(rank=4, alpha=4.0), reference)
    with torch.no_grad():
        for parameter in trainable_parameters(generator.network):
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
        ours = reference.decode(generator.generate(noise, condition))
    generator.save_pretrained(tmp_path / "final")
    assert (tmp_path / "final" / "adapter").is_dir() == (mode == "lora")
    call = call_arguments(tmp_path / "final", 1)
    assert call == {"num_inference_steps": 1, "true_cfg_scale": 1.0, **SIZE}
    torch.testing.assert_close(ours, drawn(pipeline_of(tmp_path / "final"), noise, **call), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        untrained = reference.decode(DiffusersGenerator.from_reference(reference).generate(noise, condition))
    assert (ours - untrained).abs().max() > 1e-3


@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
def test_a_lora_in_lightnings_layout_is_fused_as_stock_diffusers_fuses_it(
    twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "cache"))
    pipeline, tensors, rank = pipeline_of(twin), dict[str, Tensor](), 4
    for name, layer in pipeline.transformer.named_modules():
        if isinstance(layer, nn.Linear) and name.startswith("transformer_blocks") and "_mod." not in name:
            tensors[f"{prefix}{name}.lora_down.weight"] = torch.randn(rank, layer.in_features) / 10
            tensors[f"{prefix}{name}.lora_up.weight"] = torch.randn(layer.out_features, rank) / 10
            tensors[f"{prefix}{name}.alpha"] = torch.tensor(8.0)
    save_file(tensors, tmp_path / "lightning.safetensors")
    fused = fused_weights(twin, "transformer", twin / "transformer", [str(tmp_path / "lightning.safetensors")])
    ours, before = load_file(fused / "diffusion_pytorch_model.safetensors"), dict(pipeline.transformer.state_dict())
    before = {name: tensor.clone() for name, tensor in before.items()}
    pipeline.load_lora_weights(str(tmp_path), weight_name="lightning.safetensors")
    pipeline.fuse_lora(components=["transformer"])
    pipeline.unload_lora_weights()
    theirs = dict(pipeline.transformer.state_dict())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    changed = [name for name in before if not torch.equal(before[name], theirs[name])]
    assert len(changed) == len(tensors) // 3 > 0


def test_the_architecture_has_the_parameters_of_the_published_files() -> None:
    blueprint = find_pipeline("qwen-image")
    with torch.device("meta"):
        assert 2 * parameter_count(blueprint.build("transformer")) == TRANSFORMER_BYTES
        assert 2 * parameter_count(blueprint.build("text_encoder")) == ENCODER_BYTES
    assert blueprint.latent_shape == (16, 128, 128)


def test_lightning_is_a_lora_over_qwen_image_that_is_asked_for_its_own_steps() -> None:
    entries = get_registry().entries["generator"]
    for name, steps in (("qwen-image-lightning", 4), ("qwen-image-lightning-8", 8)):
        model = entries[name].factory
        assert model.hub == "lightx2v/Qwen-Image-Lightning" and model.pipeline == "Qwen/Qwen-Image"
        assert f"-{steps}steps-" in model.lora[0] and entries[name].defaults["generator_steps"] == steps
