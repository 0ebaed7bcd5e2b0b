"""Flux.2's pipelines: what their twins draw, encode and leave is what stock diffusers makes of the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu, format_input
from torch import Tensor

from dipp_flux_2.family import Flux2KleinFamily
from dipp_flux_2.schedule import empirical_mu
from dipp_toolkit.config import TrainConfig
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.diffusion.schedules import schedule_from_config
from dipp_toolkit.models.autoencoding import autoencoding_of
from dipp_toolkit.models.blueprints import find_pipeline, parameter_count
from dipp_toolkit.models.decoding import DecodeOptions
from dipp_toolkit.models.files.folders import quiet_loading
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.guidance_embedding import with_guidance_embedding
from dipp_toolkit.models.lora import AdapterSettings
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.models.weight_sharing import trainable_parameters
from dipp_toolkit.registry import get_registry
from dipp_toolkit.training.publish import call_arguments, card_text
from plain import pipeline_of

KLEIN, DEV = "Flux2KleinPipeline", "Flux2Pipeline"
PROMPTS = ["a red cat", "a big blue house on the sea, with a tree and the sun in a yellow sky"]
SIZE = {"height": 32, "width": 32}
FILES = {
    "flux2-klein": (7_751_105_712, 8_044_982_048),
    "flux2-klein-base-4b": (7_751_105_712, 8_044_982_048),
    "flux2-klein-9b": (18_157_185_168, 16_381_517_176),
    "flux2-klein-base-9b": (18_157_185_168, 16_381_517_176),
}
"""Bytes of the transformer's and the text encoder's published files, bfloat16 with a header."""

VAE_FILE = 336_211_292
"""Bytes of the autoencoder's, float32."""

HEADER = 64_000
"""More bytes than a file's header has."""


@pytest.fixture(scope="module")
def klein(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_twin(KLEIN, tmp_path_factory.mktemp("twins") / "klein")


@pytest.fixture(scope="module")
def reference(klein: Path) -> DiffusersReference:
    return DiffusersReference.load(str(klein)).to("cpu")


@pytest.fixture(scope="module")
def condition(reference: DiffusersReference) -> Condition:
    return reference.encode(PROMPTS)


@pytest.fixture(scope="module")
def plain(klein: Path) -> Any:
    return pipeline_of(klein)


def drawn(pipeline: Any, noise: Tensor, **call: Any) -> Tensor:
    images: Tensor = pipeline(prompt=PROMPTS, latents=noise, output_type="pt", **{**SIZE, **call}).images
    return images


@pytest.fixture
def noise(reference: DiffusersReference) -> Tensor:
    return fixed_noise(len(PROMPTS), reference.latent_shape, 3)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("steps", [2, 6])
def test_sampling_equals_the_stock_pipeline(
    plain: Any, reference: DiffusersReference, condition: Condition, noise: Tensor, steps: int, guidance: float
) -> None:
    ours = reference.decode(reference.sample(condition, noise, steps, guidance))
    theirs = drawn(plain, noise, num_inference_steps=steps, guidance_scale=guidance)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (theirs[0] - theirs[1]).abs().max() > 1e-3


def test_a_distilled_pipeline_makes_one_pass_whatever_guidance_it_is_asked_for(
    condition: Condition, noise: Tensor, tmp_path: Path
) -> None:
    folder = write_twin(KLEIN, tmp_path / "distilled", is_distilled=True)
    distilled = DiffusersReference.load(str(folder))
    assert not distilled.takes_two_passes(4.0)
    ours = distilled.decode(distilled.sample(condition, noise, 4, 4.0))  # encoded by the other, of the same weights
    theirs = drawn(pipeline_of(folder), noise, num_inference_steps=4, guidance_scale=4.0)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours, distilled.decode(distilled.sample(condition, noise, 4, 1.0)))


def test_embeddings_are_the_stock_pipelines_padding_included(plain: Any, condition: Condition) -> None:
    theirs, _ = plain.encode_prompt(PROMPTS, device="cpu")
    ours = condition.tensors["encoder_hidden_states"]
    assert ours.shape == (2, 512, 3 * 16)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert ours[0, -1].abs().max() > 1e-3  # the padding's, which the transformer sees


def test_a_prompt_is_counted_with_the_question_around_it(reference: DiffusersReference) -> None:
    encoder = reference.encoder
    text = reference.family.texts_read(encoder.load(), ["a red cat"])[0]
    assert text.startswith("<|im_start|>user\na red cat<|im_end|>") and text.endswith("</think>\n\n")
    assert encoder.too_long(["a red cat"]) == {}
    long = " ".join(["cat"] * 505)
    count = len(encoder.load().tokenizer(reference.family.texts_read(encoder.load(), [long])[0]).input_ids)
    assert encoder.too_long([long]) == {long: count} and count > 512


def test_latents_are_standardised_patches_both_ways(plain: Any, reference: DiffusersReference) -> None:
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    encoded = autoencoding_of(reference.family).encode(reference.vae, pixels)
    with torch.no_grad():
        torch.testing.assert_close(encoded, plain._encode_vae_image(pixels, None))
    own = reference.vae.encode(pixels).latent_dist.mean
    decoded = autoencoding_of(reference.family).decode(reference.vae, encoded)
    torch.testing.assert_close(decoded, reference.vae.decode(own, return_dict=False)[0], rtol=1e-4, atol=1e-4)


def test_a_rewards_decode_recomputes_the_same_image_and_gradient(reference: DiffusersReference, noise: Tensor) -> None:
    found = []
    for options in (DecodeOptions(), DecodeOptions(checkpointing=True)):
        latents = noise.clone().requires_grad_()
        images = reference.reward_decoder(options)(latents)
        (gradient,) = torch.autograd.grad(images.square().sum(), latents)
        found.append((images.detach(), gradient))
    torch.testing.assert_close(found[0], found[1])
    assert found[0][1].abs().max() > 0


@pytest.mark.parametrize("steps", [1, 4, 10, 50, 200])
@pytest.mark.parametrize("tokens", [1, 256, 4096, 4300, 4301, 9216])
def test_the_shift_is_the_stock_pipelines(tokens: int, steps: int) -> None:
    assert empirical_mu(tokens, steps) == pytest.approx(compute_empirical_mu(tokens, steps), abs=1e-9)


@pytest.mark.parametrize("side", [16, 48, 64])
def test_a_trainings_times_are_shifted_as_a_stock_call_shifts_them(reference: DiffusersReference, side: int) -> None:
    config = reference.family.stock_call.understood(reference.scheduler)
    schedule = schedule_from_config(config, (128, side, side))
    scheduler = type(reference.scheduler).from_config(reference.scheduler.config)
    scheduler.set_timesteps(sigmas=[0.9, 0.5, 0.1], mu=compute_empirical_mu(side * side, 50))
    torch.testing.assert_close(schedule.sigma(torch.tensor([0.9, 0.5, 0.1])), scheduler.sigmas[:-1])


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
    assert call == {"num_inference_steps": 1, "guidance_scale": 1.0, **SIZE}
    torch.testing.assert_close(ours, drawn(pipeline_of(tmp_path / "final"), noise, **call), rtol=1e-4, atol=1e-4)
    assert (ours - reference.decode(reference.sample(condition, noise, 1, 1.0))).abs().max() > 1e-3


def test_the_card_says_prompt_because_the_calls_first_argument_is_an_image(klein: Path) -> None:
    card = card_text(klein, TrainConfig(reference=str(klein)), {})
    assert 'pipeline(prompt="a prompt", num_inference_steps=1, guidance_scale=1.0, height=32, width=32)' in card


@pytest.mark.parametrize("name", FILES)
def test_the_architectures_have_the_parameters_of_the_published_files(name: str) -> None:
    blueprint = find_pipeline(name)
    with torch.device("meta"):
        counts = [parameter_count(blueprint.build(part)) for part in ("transformer", "text_encoder", "vae")]
    for count, bytes_each, size in zip(counts, (2, 2, 4), (*FILES[name], VAE_FILE), strict=True):
        assert 0 < size - bytes_each * count < HEADER
    assert blueprint.latent_shape == (128, 64, 64)
    assert Flux2KleinFamily().configured(blueprint.folder).distilled == ("base" not in name)


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> DiffusersReference:
    return DiffusersReference.load(str(write_twin(DEV, tmp_path_factory.mktemp("twins") / "dev"))).to("cpu")


def test_devs_guidance_is_an_input_of_its_network(dev: DiffusersReference, noise: Tensor) -> None:
    pipeline, condition = pipeline_of(dev.folder), dev.encode(PROMPTS)
    theirs, _ = pipeline.encode_prompt(PROMPTS, device="cpu")
    torch.testing.assert_close(condition.tensors["encoder_hidden_states"], theirs, rtol=1e-5, atol=1e-5)
    drawings = []
    for guidance in (4.0, 2.5):
        told = with_guidance_embedding(dev.family, guidance, dev.folder)
        reference = DiffusersReference(dev.folder, told, dev.network, dev.vae, dev.scheduler, dev.encoder)
        ours = reference.decode(reference.sample(condition, noise, 3, 4.0))  # the guidance of two passes is passed over
        theirs = drawn(pipeline, noise, num_inference_steps=3, guidance_scale=guidance)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        drawings.append(ours)
    assert (drawings[0] - drawings[1]).abs().max() > 1e-3
    assert call_arguments(dev.folder, 1) == {"num_inference_steps": 1, "guidance_scale": 4.0, **SIZE}


def test_dev_reads_a_prompt_behind_the_systems_message(dev: DiffusersReference) -> None:
    encoder, family = dev.encoder, dev.family
    pipeline = encoder.load()
    with quiet_loading():
        inputs = pipeline.tokenizer.apply_chat_template(
            format_input(["a red [IMG]cat"], pipeline.system_message), tokenize=True, return_dict=True
        )
    tokenizer, limit = family.token_limit(pipeline)
    assert tokenizer(family.texts_read(pipeline, ["a red [IMG]cat"])).input_ids == [list(inputs["input_ids"][0])]
    assert limit == 512 and encoder.too_long(["a red cat"]) == {}
    assert list(encoder.too_long(["a cat", " ".join(["cat"] * 600)])) == [" ".join(["cat"] * 600)]


def test_devs_architecture_has_the_size_that_its_authors_state() -> None:
    blueprint = find_pipeline("flux2")
    with torch.device("meta"):
        billions = [parameter_count(blueprint.build(part)) / 1e9 for part in ("transformer", "text_encoder")]
    assert billions == pytest.approx([32.22, 24.01], abs=0.005)


def test_names_that_may_not_be_used_commercially_say_so() -> None:
    entries = get_registry().entries["generator"]
    assert entries["flux2-klein"].origin.licence.id == "apache-2.0"
    assert entries["flux2-klein-9b"].origin.licence.non_commercial
    assert get_registry().entries["reference"]["flux2"].origin.licence.non_commercial
