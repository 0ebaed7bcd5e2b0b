"""Settings of published pipelines that change what stock diffusers draws: references and exports draw the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline, FluxPipeline, PixArtAlphaPipeline
from torch import Tensor

from dipp_cli.actions.generate import GenerateRequest, make_images
from dipp_pixart.captions import cleaned, is_plain
from dipp_toolkit import load_reference
from dipp_toolkit.config import make_config
from dipp_toolkit.errors import RequestError
from dipp_toolkit.experiments.bench.sources import Source
from dipp_toolkit.models.decoding import DecodeOptions
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.sampling import fixed_noise, sample_reference
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.prompts.cache import encoder_folder
from dipp_toolkit.training.publish import call_arguments, load_arguments
from dipp_toolkit.training.setup.preflight import Parts, check_networks

PIXART, SD, SDXL, SD3, FLUX = (
    "PixArtAlphaPipeline", "StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline",
    "FluxPipeline",
)  # fmt: skip
UNETS = pytest.mark.parametrize("name", [SD, SDXL])
PROMPTS = ["a red fox on blue", "birthday cake"]
SEED = 3
PLAYGROUND = {
    "latents_mean": [-1.6574, 0.886, -1.383, 0.5155], "latents_std": [8.4927, 5.9022, 6.5498, 5.2299],
    "scaling_factor": 0.5,
}  # fmt: skip
TOLERANCE = {"rtol": 0, "atol": 1e-5}


def edit(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; those of None are null there, those of `...` are taken out."""
    entries = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in entries.items() if value is not ...}))


def reference_of(folder: Path, **options: Any) -> DiffusersReference:
    reference = load_reference(str(folder), **options)
    assert isinstance(reference, DiffusersReference)
    return reference


def stock(folder: Path, shape: tuple[int, ...], steps: int, guidance: float, **call: Any) -> Tensor:
    """What the stock pipeline's own call draws of the noise of `SEED`."""
    pipeline = DiffusionPipeline.from_pretrained(folder, **load_arguments(folder))
    pipeline.set_progress_bar_config(disable=True)
    noise = fixed_noise(len(PROMPTS), shape, SEED)
    if isinstance(pipeline, PixArtAlphaPipeline):
        call = {"use_resolution_binning": False} | call
    if isinstance(pipeline, FluxPipeline):
        call = {"height": 2 * shape[1], "width": 2 * shape[2]} | call
        guidance = 3.5  # its guidance is an input of the network
        noise = pipeline._pack_latents(noise, *noise.shape)
    return pipeline(
        PROMPTS, latents=noise, num_inference_steps=steps, guidance_scale=guidance, output_type="pt", **call
    ).images


def assert_draws_like_stock(folder: Path, guidance: float = 2.0, **call: Any) -> Tensor:
    reference = reference_of(folder)
    ours = sample_reference(reference, reference.encode(PROMPTS), SEED, 3, guidance)
    torch.testing.assert_close(ours, stock(folder, reference.latent_shape, 3, guidance, **call), **TOLERANCE)
    assert (ours[0] - ours[1]).abs().max() > 1e-3
    return ours


def assert_export_draws_like_it(folder: Path, scratch: Path) -> None:
    """The exported generator in plain diffusers, called as its card says, draws what the generator draws."""
    generator = DiffusersGenerator.load(str(folder), readout=1.0)
    generator.save_pretrained(scratch / "final")
    reference = reference_of(scratch / "final")
    with torch.no_grad():
        noise = fixed_noise(len(PROMPTS), generator.latent_shape, SEED)
        ours = reference.decode(generator.generate(noise, reference.encode(PROMPTS)))
    arguments = call_arguments(scratch / "final", 1)
    steps, guidance = arguments.pop("num_inference_steps"), arguments.pop("guidance_scale")
    theirs = stock(scratch / "final", generator.latent_shape, steps, guidance, **arguments)
    torch.testing.assert_close(ours, theirs, **TOLERANCE)


def test_latents_are_denormalised_by_mean_and_deviation(tmp_path: Path) -> None:
    folder = write_twin(SDXL, tmp_path / "playground")
    plain = assert_draws_like_stock(folder)
    edit(folder / "vae" / "config.json", **PLAYGROUND)
    assert (assert_draws_like_stock(folder) - plain).abs().max() > 1e-2
    assert_export_draws_like_it(folder, tmp_path)


@pytest.mark.parametrize("options", [DecodeOptions(), DecodeOptions(checkpointing=True), DecodeOptions(tiling=True)])
def test_rewards_see_what_is_decoded(options: DecodeOptions, tmp_path: Path) -> None:
    folder = write_twin(SDXL, tmp_path / "playground")
    edit(folder / "vae" / "config.json", **PLAYGROUND)
    reference = reference_of(folder)
    latents = fixed_noise(2, reference.latent_shape, SEED)
    seen = reference.reward_decoder(options)(latents)
    if not options.tiling:
        torch.testing.assert_close(seen, reference.decode(latents))
    assert (seen - reference.decode(latents)).abs().mean() < 0.1


@pytest.mark.parametrize("name", [PIXART, SD, SDXL, SD3, FLUX])
def test_what_a_class_does_not_look_at_changes_nothing(name: str, tmp_path: Path) -> None:
    """Mean and deviation are SDXL's, a shift is that of the flow models."""
    folder = write_twin(name, tmp_path / "twin")
    config = json.loads((folder / "vae" / "config.json").read_text())
    numbers = [0.5] * config["latent_channels"]
    shift = config["shift_factor"] if name in (SD3, FLUX) else 0.3
    edit(folder / "vae" / "config.json", latents_mean=numbers, latents_std=numbers, shift_factor=shift)
    assert_draws_like_stock(folder, 1.0)


def test_a_mean_of_another_length_is_refused(tmp_path: Path) -> None:
    folder = write_twin(SDXL, tmp_path / "twin")
    edit(folder / "vae" / "config.json", latents_mean=[0.0], latents_std=[1.0])
    with pytest.raises(RequestError, match="expected 4 numbers"):
        load_reference(str(folder))


def test_a_tiny_decoder_is_refused_where_channels_are_normalised(tmp_path: Path) -> None:
    folder = write_twin(SDXL, tmp_path / "twin")
    edit(folder / "vae" / "config.json", **PLAYGROUND)
    with pytest.raises(RequestError, match="cannot stand in for this reference's autoencoder"):
        reference_of(folder).reward_decoder(DecodeOptions(decoder="madebyollin/taesdxl"))


@pytest.mark.parametrize("name", [SD3, FLUX])
def test_a_missing_shift_is_refused_where_stock_adds_it(name: str, tmp_path: Path) -> None:
    folder = write_twin(name, tmp_path / "twin")
    edit(folder / "vae" / "config.json", shift_factor=None)
    with pytest.raises(TypeError):
        stock(folder, (16, 8, 8), 1, 1.0)
    with pytest.raises(RequestError, match="has no shift_factor"):
        load_reference(str(folder))


@pytest.mark.parametrize("name", [PIXART, SD, SDXL, SD3, FLUX])
def test_a_pipeline_may_have_a_tiny_autoencoder(name: str, tmp_path: Path) -> None:
    folder = write_twin(name, tmp_path / "twin")
    vae = AutoencoderTiny(
        latent_channels=16 if name in (SD3, FLUX) else 4, encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1),
    )  # fmt: skip
    vae.save_pretrained(folder / "vae")
    edit(folder / "model_index.json", vae=["diffusers", "AutoencoderTiny"])
    if name == FLUX:  # the stock pipeline's own size, 128 a side, is not for a test
        assert reference_of(folder).latent_shape == (16, 128, 128)
        edit(folder / "vae" / "config.json", sample_size=16)
    assert_draws_like_stock(folder, 1.0)


def test_a_decoder_that_draws_noise_is_refused(tmp_path: Path) -> None:
    folder = write_twin(SD, tmp_path / "twin")
    edit(folder / "model_index.json", vae=["diffusers", "ConsistencyDecoderVAE"])
    with pytest.raises(RequestError, match="draws noise of its own"):
        load_reference(str(folder))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("frozen", [torch.float32, torch.float16])
def test_sdxls_autoencoder_decodes_in_float32_under_float16(
    frozen: torch.dtype, checkpointing: bool, tmp_path: Path
) -> None:
    folder = write_twin(SDXL, tmp_path / "twin")
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    vae.decoder.conv_in.weight.data.mul_(1e6)
    vae.save_pretrained(folder / "vae")
    exact = reference_of(folder)
    latents = fixed_noise(2, exact.latent_shape, SEED).requires_grad_(True)
    expected = exact.reward_decoder(DecodeOptions())(latents)
    (right,) = torch.autograd.grad(expected.mean(), latents)

    reference = reference_of(folder, dtype=frozen)
    assert next(reference.vae.parameters()).dtype == torch.float32
    decode = reference.reward_decoder(DecodeOptions(checkpointing=checkpointing))
    with torch.autocast("cpu", torch.float16):
        images = decode(latents)
        (gradient,) = torch.autograd.grad(images.mean(), latents)
    torch.testing.assert_close(images, expected)
    torch.testing.assert_close(gradient, right)

    edit(folder / "vae" / "config.json", force_upcast=False)
    narrow = reference_of(folder, dtype=frozen).reward_decoder(DecodeOptions())
    with torch.autocast("cpu", torch.float16):
        assert not torch.isfinite(narrow(latents)).all()


@pytest.mark.parametrize("name", [PIXART, SD, SD3, FLUX])
def test_other_classes_decode_in_the_precision_asked_for(name: str, tmp_path: Path) -> None:
    folder = write_twin(name, tmp_path / "twin")
    assert next(reference_of(folder, dtype=torch.float16).vae.parameters()).dtype == torch.float16


@UNETS
@pytest.mark.parametrize("guidance", [1.0, 4.5])
def test_a_consistency_unet_is_told_the_guidance(name: str, guidance: float, tmp_path: Path) -> None:
    folder = write_twin(name, tmp_path / "lcm", time_cond_proj_dim=32)
    assert_draws_like_stock(folder, guidance)
    assert not reference_of(folder).takes_two_passes(guidance)


@UNETS
def test_a_consistency_unet_as_a_generator_is_told_a_guidance_of_one(name: str, tmp_path: Path) -> None:
    assert_export_draws_like_it(write_twin(name, tmp_path / "lcm", time_cond_proj_dim=32), tmp_path)


@UNETS
def test_a_consistency_unet_is_no_reference_of_a_training(name: str, tmp_path: Path) -> None:
    folder = str(write_twin(name, tmp_path / "lcm", time_cond_proj_dim=32))
    plain = str(write_twin(name, tmp_path / "plain"))
    for generator, reference in ((folder, folder), (plain, folder)):
        with pytest.raises(RequestError, match="latent consistency model's"):
            check_networks(make_config({"generator": generator, "reference": reference}), Parts())
    check_networks(make_config({"generator": folder, "reference": plain, "readout": 1.0}), Parts())


@pytest.mark.parametrize("guidance", [0.0, 0.7])
@pytest.mark.parametrize("name", [PIXART, SD, SDXL, SD3])
def test_guidance_below_one_is_none(name: str, guidance: float, tmp_path: Path) -> None:
    assert_draws_like_stock(write_twin(name, tmp_path / "twin"), guidance)


def test_flux_with_guidance_is_its_true_cfg(tmp_path: Path) -> None:
    folder = write_twin(FLUX, tmp_path / "twin")
    reference = reference_of(folder)
    ours = sample_reference(reference, reference.encode(PROMPTS), SEED, 3, 2.0)
    theirs = stock(folder, reference.latent_shape, 3, 3.5, true_cfg_scale=2.0, negative_prompt=["", ""])
    torch.testing.assert_close(ours, theirs, **TOLERANCE)


@pytest.mark.first_case
@pytest.mark.parametrize("sides", [[8, 12], [12, 8]])
@pytest.mark.parametrize("name", [SD, SDXL, FLUX])
def test_images_may_be_higher_or_wider(name: str, sides: list[int], tmp_path: Path) -> None:
    folder = write_twin(name, tmp_path / "twin")
    if name == FLUX:
        edit(folder / "vae" / "config.json", sample_size=[2 * side for side in sides])
    else:
        edit(folder / "unet" / "config.json", sample_size=sides)
    height, width = (2 * side for side in sides)
    assert assert_draws_like_stock(folder, 1.0, height=height, width=width).shape[-2:] == (height, width)
    assert_export_draws_like_it(folder, tmp_path)


def test_a_pipeline_without_t5_draws_as_stock_does(tmp_path: Path) -> None:
    folder = write_twin(SD3, tmp_path / "twin", t5=False)
    assert load_arguments(folder) == {"text_encoder_3": None, "tokenizer_3": None}
    assert_draws_like_stock(folder)
    assert_export_draws_like_it(folder, tmp_path)


@pytest.mark.parametrize(
    ("name", "lacking"),
    [(PIXART, "text_encoder"), (SD, "text_encoder"), (SDXL, "text_encoder_2"), (SD3, "text_encoder_2"),
     (FLUX, "text_encoder_2")],
)  # fmt: skip
def test_a_text_encoder_that_stock_needs_is_named_where_it_is_missing(name: str, lacking: str, tmp_path: Path) -> None:
    folder = write_twin(name, tmp_path / "twin")
    edit(folder / "model_index.json", **{lacking: [None, None]})
    with pytest.raises(RequestError, match=f"has no {lacking}: model_index.json says null"):
        load_reference(str(folder)).encode(PROMPTS)


LONG = " ".join(["a cat on a tree"] * 60)
"""More tokens than either Flux reads."""


def test_flux_without_guidance_reads_256_tokens(tmp_path: Path) -> None:
    dev, schnell = (write_twin(FLUX, tmp_path / name, guidance_embeds=name == "dev") for name in ("dev", "schnell"))
    shapes = {}
    for folder, tokens in ((dev, 512), (schnell, 256)):
        reference = reference_of(folder)
        reference.encoder.long_prompts = "cut"
        condition = reference.encode([LONG, "a cat"])
        shapes[tokens] = condition.tensors["encoder_hidden_states"].shape
        assert shapes[tokens][1] == tokens
        ours = reference.decode(reference.sample(condition, fixed_noise(2, reference.latent_shape, SEED), 2, 1.0))
        pipeline = DiffusionPipeline.from_pretrained(folder)
        noise = pipeline._pack_latents(fixed_noise(2, reference.latent_shape, SEED), 2, *reference.latent_shape)
        theirs = pipeline(
            [LONG, "a cat"], latents=noise, num_inference_steps=2, guidance_scale=3.5, height=16, width=16,
            max_sequence_length=tokens, output_type="pt",
        ).images  # fmt: skip
        torch.testing.assert_close(ours, theirs, **TOLERANCE)
    assert_export_draws_like_it(schnell, tmp_path)
    assert call_arguments(tmp_path / "final", 1)["max_sequence_length"] == 256
    keys = {encoder_folder(tmp_path, reference_of(folder).encoder) for folder in (dev, schnell)}
    assert len(keys) == 2


@pytest.mark.first_case
@pytest.mark.parametrize("said", [..., 10**30, 200])
@pytest.mark.parametrize("name", [SD, SDXL, SD3, FLUX])
def test_a_tokenizer_without_a_length_reads_what_its_encoder_can(name: str, said: Any, tmp_path: Path) -> None:
    folder = write_twin(name, tmp_path / "twin")
    for path in folder.glob("tokenizer*/tokenizer_config.json"):
        if json.loads(path.read_text())["tokenizer_class"] == "CLIPTokenizer":
            edit(path, model_max_length=said)
    reference = reference_of(folder)
    ours = sample_reference(reference, reference.encode(PROMPTS), SEED, 2, 1.0)
    whole = write_twin(name, tmp_path / "whole")
    torch.testing.assert_close(ours, stock(whole, reference.latent_shape, 2, 1.0), **TOLERANCE)
    assert_export_draws_like_it(folder, tmp_path)


@pytest.mark.parametrize("pad", ["!", "<|endoftext|>"])
def test_stable_diffusion_2_pads_with_an_exclamation_mark(pad: str, tmp_path: Path) -> None:
    folder = write_twin(SD, tmp_path / "twin")
    edit(folder / "tokenizer" / "tokenizer_config.json", pad_token=pad)
    assert DiffusionPipeline.from_pretrained(folder).tokenizer.pad_token == pad
    assert_draws_like_stock(folder)


CAPTIONS = [
    "A Red Fox (on a mat), 4k [masterpiece] https://example.com/fox.png", "birthday cake #12345678 1280x720 @baker",
    "  Free shipping: <b>cake</b> &amp; tea ", "IMG_1234.JPG of a cat -- by jc6640", "", "an epson printer, clicked on",
    "plain words", "Download", "ﬁne “quotes” — and 猫",
]  # fmt: skip


def test_captions_are_cleaned_as_the_stock_pipelines_own_call_cleans_them(tmp_path: Path) -> None:
    folder = write_twin(PIXART, tmp_path / "twin")
    reference = reference_of(folder)
    ours = sample_reference(reference, reference.encode(CAPTIONS), SEED, 2, 2.0)
    pipeline = DiffusionPipeline.from_pretrained(folder)
    theirs = pipeline(
        CAPTIONS, latents=fixed_noise(len(CAPTIONS), reference.latent_shape, SEED), num_inference_steps=2,
        guidance_scale=2.0, output_type="pt", use_resolution_binning=False,
    ).images  # fmt: skip
    torch.testing.assert_close(ours, theirs, **TOLERANCE)
    texts = cleaned(pipeline, CAPTIONS)
    assert texts != [caption.lower().strip() for caption in CAPTIONS]
    assert [cleaned(pipeline, [caption]) for caption in CAPTIONS] == [[text] for text in texts]


@pytest.mark.parametrize("caption", ["plain words", "Two  spaces", "", "epson", "shipping", "a b c d e f"])
def test_plain_captions_are_what_cleaning_leaves_of_them(caption: str) -> None:
    text = caption.lower().strip()
    clean = partial(PixArtAlphaPipeline._clean_caption, PixArtAlphaPipeline)
    assert not is_plain(text) or clean(clean(caption)) == text


def test_a_caption_that_cannot_be_cleaned_is_refused_by_the_packages_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dipp_pixart.captions.missing_of", lambda modules: ["bs4"])
    reference = reference_of(write_twin(PIXART, tmp_path / "twin"))
    reference.encode(["plain words"])
    with pytest.raises(RequestError, match="pip install beautifulsoup4"):
        reference.encode(["plain words", "a cat (on a mat)"])


def test_a_prompts_length_is_that_of_the_caption_that_is_read(tmp_path: Path) -> None:
    reference = reference_of(write_twin(PIXART, tmp_path / "twin"))
    assert not reference.encoder.too_long(["a cat https://example.com/" + "x" * 200])
    assert reference.encoder.too_long(["x" * 200])


def test_the_card_says_how_many_tokens_are_read_where_they_are_fewer_than_the_pipelines(tmp_path: Path) -> None:
    folder = write_twin(PIXART, tmp_path / "twin", max_tokens=30)
    assert call_arguments(folder, 1)["max_sequence_length"] == 30
    assert "max_sequence_length" not in call_arguments(write_twin(PIXART, tmp_path / "whole"), 1)
    assert_export_draws_like_it(folder, tmp_path)


def test_a_pixart_of_1024_pixels_is_told_its_size(tmp_path: Path) -> None:
    """The size is in pixels, of which this autoencoder has two a latent and the published one eight."""
    folder = write_twin(PIXART, tmp_path / "large", sample_size=128)
    assert_draws_like_stock(folder, 1.0)


@pytest.mark.parametrize("name", [PIXART, SD3])
def test_a_size_that_stock_cannot_draw_is_refused(name: str, tmp_path: Path) -> None:
    folder = write_twin(name, tmp_path / "twin")
    edit(folder / "transformer" / "config.json", sample_size=[8, 12])
    with pytest.raises(RequestError, match=r"sample_size \[8, 12\]"):
        load_reference(str(folder))


def test_conditions_of_size_that_stock_never_tells_are_refused(tmp_path: Path) -> None:
    folder = write_twin(PIXART, tmp_path / "twin")
    edit(folder / "transformer" / "config.json", use_additional_conditions=True)
    with pytest.raises(RequestError, match="fails elsewhere"):
        load_reference(str(folder))


def test_a_tokenizer_of_sentencepiece_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PixArt's is published without a tokenizer.json."""
    folder = write_twin(PIXART, tmp_path / "twin")
    monkeypatch.setattr("dipp_toolkit.models.text_encoders.missing_of", list)
    (folder / "tokenizer" / "spiece.model").write_bytes(b"a model")
    reference_of(folder).encode(PROMPTS)
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(RequestError, match=r"spiece\.model is read by sentencepiece and protobuf"):
        reference_of(folder).encode(PROMPTS)


def test_a_reference_encodes_no_more_tokens_than_its_generator_reads(tmp_path: Path) -> None:
    dev, schnell = (write_twin(FLUX, tmp_path / name, guidance_embeds=name == "dev") for name in ("dev", "schnell"))
    shutil.rmtree(dev / "vae")
    shutil.copytree(schnell / "vae", dev / "vae")  # they are published with the same
    request = GenerateRequest(generator=str(schnell), reference=str(dev), prompt=PROMPTS, seed=SEED, device="cpu")
    _, through_dev, _ = make_images(request)
    _, own, _ = make_images(replace(request, reference=None))
    torch.testing.assert_close(through_dev, own, **TOLERANCE)


def test_an_sdxl_without_its_first_text_encoder_draws_as_stock_does(tmp_path: Path) -> None:
    folder = write_twin(SDXL, tmp_path / "twin", first_encoder=False)
    assert not (folder / "text_encoder").exists()
    assert_draws_like_stock(folder)
    assert_export_draws_like_it(folder, tmp_path)


def test_a_refiner_is_refused(tmp_path: Path) -> None:
    folder = write_twin(SDXL, tmp_path / "twin")
    config = json.loads((folder / "unet" / "config.json").read_text())
    fewer = config["projection_class_embeddings_input_dim"] - config["addition_time_embed_dim"]
    edit(folder / "unet" / "config.json", projection_class_embeddings_input_dim=fewer)
    with pytest.raises(RequestError, match="A refiner's takes an aesthetic score"):
        load_reference(str(folder))


def test_a_bench_makes_images_anew_where_latents_are_normalised_otherwise(tmp_path: Path) -> None:
    folder = write_twin(SDXL, tmp_path / "twin")
    prints = [Source(reference_of(folder)).fingerprint()]
    for factor in (0.5, 0.25):
        edit(folder / "vae" / "config.json", **PLAYGROUND | {"scaling_factor": factor})
        prints.append(Source(reference_of(folder)).fingerprint())
    assert len(set(prints)) == 3
