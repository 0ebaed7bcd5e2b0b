"""The embedded world: its words, its images, and its weights by our code and by plain diffusers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from dipp_emoji import WEIGHTS
from dipp_emoji.captions import BACKGROUNDS, TEMPLATES, caption, emoji, is_held_out, pairs, vocabulary
from dipp_emoji.compose import backgrounds, compose, sprites
from dipp_emoji.judge import EmojiJudge
from dipp_emoji.recipe.pixart import build_tokenizer
from dipp_emoji.recipe.reference import CaptionTable
from dipp_toolkit import TrainConfig, load_generator, load_prompts, load_reference
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.sampling import fixed_noise, generate_images, sample_reference
from dipp_toolkit.protocols import texts
from dipp_toolkit.training.setup.resolve import resolve


def test_a_third_of_the_pairs_is_held_out_evenly() -> None:
    held, seen = set(pairs(held_out=True)), set(pairs(held_out=False))
    assert (len(held), len(seen), len(held & seen)) == (352, 704, 0)
    for i in range(len(emoji())):
        assert 2 <= sum(is_held_out(i, j) for j in range(len(BACKGROUNDS))) <= 3
    assert set(texts(load_prompts("emoji-heldout"))).isdisjoint(texts(load_prompts("emoji-train")))


def test_names_are_distinct_and_every_word_is_in_the_vocabulary() -> None:
    names = [name for item in emoji() for name in item.names]
    assert len(names) == len(set(names))
    tokenizer = build_tokenizer()
    for i, item in enumerate(emoji()):
        for name in range(len(item.names)):
            for template in range(len(TEMPLATES)):
                ids = tokenizer(caption(i, i % 8, name, template))["input_ids"]
                assert tokenizer.unk_token_id not in ids
                assert len(ids) <= tokenizer.model_max_length
    assert len(vocabulary()) == len(set(vocabulary()))


def test_caption_table_gives_the_captions_it_says() -> None:
    table = CaptionTable(build_tokenizer(), len(emoji()), len(BACKGROUNDS))
    ids, _ = table.sample(torch.tensor([5] * 200), torch.tensor([3] * 200), torch.Generator().manual_seed(0))
    decoded = {build_tokenizer().decode(row, skip_special_tokens=True).strip() for row in ids}
    possible = {caption(5, 3, name, template).replace(",", " ,") for name in range(2) for template in range(4)} | {""}
    assert decoded == possible


def test_composed_images_show_the_background_and_stay_in_range() -> None:
    assert sprites().shape == (132, 4, 64, 64)
    index = torch.arange(132)
    images = compose(index, index % 8, torch.Generator().manual_seed(0))
    assert images.min() >= 0
    assert images.max() <= 1
    torch.testing.assert_close(images[:, :, 0, 0], backgrounds()[index % 8], atol=1e-3, rtol=0)
    again = compose(index, index % 8, torch.Generator().manual_seed(0))
    assert torch.equal(images, again)


def test_all_weights_are_safetensors_and_fit_in_sixty_megabytes() -> None:
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]
    assert sum(path.stat().st_size for path in files) < 60 * 2**20


def test_plain_diffusers_makes_the_references_images() -> None:
    reference = load_reference("emoji-reference")
    assert isinstance(reference, DiffusersReference)
    prompts = ["fox on blue", "birthday cake on yellow"]
    noise = fixed_noise(2, reference.latent_shape, seed=3)
    ours = reference.decode(reference.sample(reference.encode(prompts), noise, 10, 2.0))
    pipeline = DiffusionPipeline.from_pretrained(WEIGHTS / "reference")
    theirs = pipeline(
        prompts,
        num_inference_steps=10,
        guidance_scale=2.0,
        latents=noise,
        use_resolution_binning=False,
        output_type="pt",
    ).images
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


def test_plain_diffusers_makes_the_unet_references_images() -> None:
    reference = load_reference("emoji-unet-reference")
    prompts = ["fox on blue", "birthday cake on yellow"]
    noise = fixed_noise(2, reference.latent_shape, seed=3)
    ours = reference.decode(reference.sample(reference.encode(prompts), noise, 10, 2.0))
    pipeline = DiffusionPipeline.from_pretrained(WEIGHTS / "unet-reference")
    assert type(pipeline).__name__ == "StableDiffusionPipeline"
    theirs = pipeline(prompts, num_inference_steps=10, guidance_scale=2.0, latents=noise, output_type="pt").images
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


def test_a_distillation_of_the_unet_is_read_out_where_a_one_step_stable_diffusion_is() -> None:
    config = resolve(TrainConfig(reference="emoji-unet-reference", rewards={}))
    assert (config.readout, config.input_scale, config.prompts) == (625 / 999, "sigma", "emoji-train")


@pytest.mark.parametrize(
    ("world", "folder", "timestep", "options"),
    [("emoji", "onestep", 999, {"use_resolution_binning": False}), ("emoji-unet", "unet-onestep", 625, {})],
)
def test_plain_diffusers_makes_the_generators_images(
    world: str, folder: str, timestep: int, options: dict[str, Any]
) -> None:
    reference, generator = load_reference(f"{world}-reference"), load_generator(f"{world}-onestep")
    assert isinstance(generator, DiffusersGenerator)
    assert generator.denoiser.schedule.network_time(torch.tensor([generator.readout])) == timestep
    prompts = ["fox on blue", "birthday cake on yellow"]
    ours = generate_images(generator, reference, reference.encode(prompts), seed=3)
    pipeline = DiffusionPipeline.from_pretrained(WEIGHTS / folder)
    theirs = pipeline(
        prompts, num_inference_steps=1, guidance_scale=1.0, latents=fixed_noise(2, generator.latent_shape, seed=3),
        output_type="pt", **options,
    ).images  # fmt: skip
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


@pytest.mark.exhaustive
def test_the_judge_names_what_reference_and_generator_draw_for_held_out_prompts() -> None:
    judge, reference, generator = EmojiJudge(), load_reference("emoji-reference"), load_generator("emoji-onestep")
    prompts = texts(load_prompts("emoji-heldout"))[::4]
    condition = reference.encode(prompts)
    assert judge.naming_accuracy(generate_images(generator, reference, condition, seed=5), prompts) >= 0.9
    assert judge.naming_accuracy(sample_reference(reference, condition, 5, steps=12, guidance=2.0), prompts) >= 0.9
    unet, onestep = load_reference("emoji-unet-reference"), load_generator("emoji-unet-onestep")
    assert judge.naming_accuracy(generate_images(onestep, unet, unet.encode(prompts), seed=5), prompts) >= 0.9
    assert judge.naming_accuracy(sample_reference(unet, unet.encode(prompts[::4]), 5, 12, 3.0), prompts[::4]) >= 0.9
    wrong = prompts[1:] + prompts[:1]
    assert judge.naming_accuracy(generate_images(generator, reference, condition, seed=5), wrong) < 0.1
