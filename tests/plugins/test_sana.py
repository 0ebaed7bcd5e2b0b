"""SANA and SANA-Sprint folders as references and generators, against plain diffusers on the very same folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderDC, DiffusionPipeline
from torch import Tensor

from dipp_sana.family import SanaFamily, SanaSprintFamily
from dipp_sana.twins import write_sana_sprint_twin, write_sana_twin
from dipp_toolkit import TrainConfig, train
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.blueprints import find_pipeline, parameter_count
from dipp_toolkit.models.decoding import DecodeOptions
from dipp_toolkit.models.encoding import encode_images
from dipp_toolkit.models.files.folders import family_of
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.reference import DiffusersReference, check_score
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.shared_components.differences import differing_parts
from dipp_toolkit.training.publish import call_arguments
from dipp_toolkit.utils.reproducibility import own_generators
from plain import pipeline_of
from tiny import PROMPTS

SHAPE = (4, 8, 8)
CLOSE: dict[str, float] = {"rtol": 0, "atol": 2e-5}


@pytest.fixture(scope="module")
def sana(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sana_twin(tmp_path_factory.mktemp("sana") / "twin")


@pytest.fixture(scope="module")
def sprint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sana_sprint_twin(tmp_path_factory.mktemp("sprint") / "twin")


@pytest.fixture(scope="module")
def noise() -> Tensor:
    return fixed_noise(len(PROMPTS), SHAPE, 3)


@pytest.fixture(scope="module")
def condition(sana: Path) -> Condition:
    """Encoded once: both twins have the same text encoder."""
    return DiffusersReference.load(str(sana)).encode(PROMPTS)


def stock(folder: Path, noise: Tensor, **call: Any) -> Tensor:
    """Latents by the stock pipeline's own call."""
    pipeline = pipeline_of(folder)
    generator = own_generators(noise)
    latents: Tensor = pipeline(list(PROMPTS), latents=noise, generator=generator, output_type="latent", **call).images
    return latents


def test_prompts_are_encoded_behind_the_instruction_and_the_empty_one_without(sana: Path, sprint: Path) -> None:
    pipeline = pipeline_of(sana)
    instruction = SanaFamily().instruction
    assert "User Prompt: " in instruction and instruction == SanaSprintFamily().instruction
    with torch.no_grad():
        given = pipeline.encode_prompt([PROMPTS[0].upper()], device="cpu", complex_human_instruction=[instruction])
    encoded = DiffusersReference.load(str(sana)).encode([PROMPTS[0], "", PROMPTS[1]])
    hidden, mask = (encoded.tensors[name] for name in ("encoder_hidden_states", "encoder_attention_mask"))
    assert hidden.shape == (3, 300, 16) and mask.shape == (3, 300)
    for row, place in ((0, 0), (1, 2)):  # the prompt's, and behind it the negative one's, which is empty
        assert torch.equal(mask[row], given[place + 1][0])
        there = mask[row] == 1
        torch.testing.assert_close(hidden[row, there], given[place][0, there])
        assert (hidden[row, ~there] == 0).all()
    assert mask[1].sum() == 1 < mask[0].sum() < 300
    again = DiffusersReference.load(str(sprint)).encode([PROMPTS[0], "", PROMPTS[1]])
    assert torch.equal(again.tensors["encoder_hidden_states"], hidden)


def test_long_prompts_are_known_for_it(sana: Path) -> None:
    encoder = DiffusersReference.load(str(sana)).encoder
    longest, longer = "a " * 299, "a " * 300  # the first word is one token with the space that the instruction ends in
    assert list(encoder.too_long([longest, longer, ""])) == [longer]
    with pytest.raises(RequestError, match="Shorten it"):
        encoder.encode([longer])
    encoder.set_long_prompts("cut")
    hidden = encoder.encode(["a " * 298, longest, longer]).tensors["encoder_hidden_states"]
    assert torch.equal(hidden[1], hidden[2]) and not torch.equal(hidden[0], hidden[1])


def test_a_teacher_is_sampled_as_stock(noise: Tensor, condition: Condition, tmp_path: Path) -> None:
    folder = write_sana_twin(tmp_path / "twin", qk_norm=True, timestep_scale=0.001)
    reference = DiffusersReference.load(str(folder))
    assert reference.latent_shape == SHAPE and reference.image_size == (32, 32)
    ours = reference.sample(condition, noise, 4, 4.5)
    theirs = stock(folder, noise, **{**call_arguments(folder, 4), "guidance_scale": 4.5})
    torch.testing.assert_close(ours, theirs, **CLOSE)
    assert (theirs[0] - theirs[1]).abs().max() > 0.1


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_sprint_is_sampled_as_stock_with_its_guidance_as_an_input(
    sprint: Path, steps: int, noise: Tensor, condition: Condition
) -> None:
    call = {**call_arguments(sprint, steps), "intermediate_timesteps": 1.3 if steps == 2 else None}
    drawn = {}
    for guidance in (None, 3.0):
        reference = DiffusersReference.load(str(sprint), guidance_embedding=guidance)
        drawn[guidance] = reference.sample(condition, noise, steps, 2.0)  # a sampler's guidance would be a second pass
        told = {"guidance_scale": 4.5 if guidance is None else guidance}
        torch.testing.assert_close(drawn[guidance], stock(sprint, noise, **{**call, **told}), **CLOSE)
    assert (drawn[None] - drawn[3.0]).abs().max() > 100 * CLOSE["atol"]


@pytest.mark.first_case
@pytest.mark.parametrize(("kind", "steps"), [("sana", 4), ("sprint", 1), ("sprint", 2), ("sprint", 4)])
def test_exported_generators_draw_in_plain_diffusers_as_here(
    kind: str, steps: int, noise: Tensor, condition: Condition, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue(kind)
    generator = DiffusersGenerator.load(str(folder), guidance_embedding=None if kind == "sana" else 3.0).in_steps(steps)
    generator.check_exportable()
    generator.save_pretrained(tmp_path / "final")
    with torch.no_grad():
        ours = generator.generate(noise, condition)
        again = DiffusersGenerator.load(str(tmp_path / "final"))
        assert again.steps == steps
        torch.testing.assert_close(again.generate(noise, condition), ours, **CLOSE)
        if steps > 1:
            assert (generator.in_steps(1).generate(noise, condition) - ours).abs().max() > 0.01
    call = call_arguments(tmp_path / "final", steps)
    torch.testing.assert_close(stock(tmp_path / "final", noise, **call), ours, **CLOSE)
    expected = {"num_inference_steps": steps, "height": 32, "width": 32, "use_resolution_binning": False}
    if kind == "sprint":
        expected |= {"guidance_scale": 3.0} | ({} if steps == 2 else {"intermediate_timesteps": None})
    assert call == {"guidance_scale": 1.0, **expected}


def test_sprint_reads_sanas_network_as_flow_matching(sprint: Path, noise: Tensor, condition: Condition) -> None:
    """The sample of one angle is flow matching's at its own time: the closed form of the docstring."""
    reference = DiffusersReference.load(str(sprint))
    family, t = reference.family, torch.full((len(PROMPTS),), 0.6)
    assert isinstance(family, SanaSprintFamily)
    schedule = reference.denoiser.schedule
    alpha, sigma = schedule.alpha(t)[0].item(), schedule.sigma(t)[0].item()
    level = sigma / (alpha + sigma)
    on_line = noise / (alpha + sigma)
    with torch.no_grad():
        scale = torch.full((len(PROMPTS),), 4.5 * 0.1)
        time = torch.full((len(PROMPTS),), level)
        velocity = family.call(reference.network, on_line, time, condition, guidance=scale)
        ours = reference.denoiser.predict_x0(noise, t, condition)
    torch.testing.assert_close(ours, on_line - level * velocity, rtol=1e-5, atol=1e-5)


def test_two_steps_of_sprint_are_trained_against_sana_by_an_adapter(
    sana: Path, sprint: Path, noise: Tensor, condition: Condition, tmp_path: Path
) -> None:
    assert differing_parts(sana, sprint) == {}
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    settings: dict[str, Any] = {
        "generator": f"diffusers:{sprint}", "reference": f"diffusers:{sana}", "generator_steps": 2, "mode": "lora",
        "lora_rank": 2, "rewards": {"colourfulness": 1.0}, "reward_scale": 1.0, "guidance": 2.0, "steps": 2,
        "batch_size": 2, "eval_count": 2, "reference_steps": 1, "assistant_warmup": 0, "learning_rate": 1e-3,
        "prompts": str(tmp_path / "prompts.txt"), "eval_prompts": str(tmp_path / "prompts.txt"), "device": "cpu",
        "decode_checkpointing": True, "gradient_checkpointing": True,
    }  # fmt: skip
    final = train(TrainConfig(**settings, out=tmp_path / "run")).folder / "final"
    generator, before = DiffusersGenerator.load(str(final)), DiffusersGenerator.load(str(sprint)).in_steps(2)
    with torch.no_grad():
        ours, untrained = generator.generate(noise, condition), before.generate(noise, condition)
    torch.testing.assert_close(stock(final, noise, **call_arguments(final, 2)), ours, **CLOSE)
    assert (ours - untrained).abs().max() > 0.01
    assert json.loads((final / "model_index.json").read_text())["scheduler"] == ["diffusers", "SCMScheduler"]
    pipeline = DiffusionPipeline.from_pretrained(sprint)
    pipeline.load_lora_weights(final / "adapter")
    with torch.no_grad():
        adapted = before.with_network(pipeline.transformer).generate(noise, condition)
    torch.testing.assert_close(adapted, ours, rtol=0, atol=1e-4)


def test_sprint_is_no_reference_of_a_training(sprint: Path) -> None:
    with pytest.raises(RequestError, match="Name the SanaPipeline that it was distilled from"):
        check_score(sprint, family_of(sprint))


def test_the_autoencoder_is_called_as_it_is(sana: Path) -> None:
    reference = DiffusersReference.load(str(sana))
    vae = reference.vae
    assert isinstance(vae, AutoencoderDC)
    latents = fixed_noise(2, SHAPE, 1)
    with torch.no_grad():
        theirs = (vae.decode(latents / 0.41407).sample / 2 + 0.5).clamp(0, 1)
        encoded = vae.encode(2 * theirs - 1).latent * 0.41407
    torch.testing.assert_close(reference.decode(latents), theirs)
    torch.testing.assert_close(encode_images(reference, theirs), encoded)
    with pytest.raises(RequestError, match="for the latents of an AutoencoderKL"):
        reference.reward_decoder(DecodeOptions(decoder="madebyollin/taesd"))


def test_the_decoder_is_recomputed_layer_by_layer(sana: Path) -> None:
    reference = DiffusersReference.load(str(sana))

    def decoded(options: DecodeOptions) -> tuple[Tensor, Tensor, int]:
        latents = fixed_noise(2, SHAPE, 1).requires_grad_()
        held: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            images = reference.reward_decoder(options)(latents)
        (gradient,) = torch.autograd.grad(images.square().sum(), latents)
        return images.detach(), gradient, sum(held.values())

    plain, checkpointed = decoded(DecodeOptions()), decoded(DecodeOptions(checkpointing=True))
    assert torch.equal(checkpointed[0], plain[0]) and torch.equal(checkpointed[1], plain[1])
    assert checkpointed[2] < plain[2] / 2


def test_the_decoder_works_in_tiles_of_half_the_side(sana: Path) -> None:
    reference = DiffusersReference.load(str(sana))
    vae = reference.vae
    vae.tile_sample_min_height = vae.tile_sample_min_width = 32
    vae.tile_sample_stride_height = vae.tile_sample_stride_width = 24
    vae.tile_latent_min_height = vae.tile_latent_min_width = 8
    latents = fixed_noise(1, SHAPE, 1).requires_grad_()
    images = reference.reward_decoder(DecodeOptions(tiling=True))(latents)
    assert images.shape == (1, 3, 32, 32) and not torch.equal(images, reference.decode(latents))
    (gradient,) = torch.autograd.grad(images.square().sum(), latents)
    assert gradient.abs().min() > 0 and not vae.use_tiling


@pytest.mark.parametrize(
    ("family", "side", "arguments"),
    [
        (SanaFamily(), 32, {}),
        (SanaFamily(), 16, {"height": 512, "width": 512}),
        (SanaFamily(), 64, {"height": 2048, "width": 2048}),
        (SanaFamily(), 24, {"height": 768, "width": 768, "use_resolution_binning": False}),
        (SanaSprintFamily(), 32, {"intermediate_timesteps": None}),
        (SanaSprintFamily(steps=2), 32, {}),
        (
            SanaSprintFamily(steps=4),
            16,
            {"height": 512, "width": 512, "use_resolution_binning": False, "intermediate_timesteps": None},
        ),
    ],
)
def test_calls_say_what_the_stock_defaults_would_get_wrong(
    family: SanaFamily, side: int, arguments: dict[str, Any]
) -> None:
    assert family.call_arguments({"sample_size": side}, {"encoder_block_out_channels": [1] * 6}) == arguments


def test_a_transformer_of_the_other_class_is_refused(sana: Path, sprint: Path, tmp_path: Path) -> None:
    for folder, kind, message in (
        (sana, "SanaSprintPipeline", "takes no guidance scale .*say SanaPipeline"),
        (sprint, "SanaPipeline", "takes a guidance scale .*say SanaSprintPipeline"),
    ):
        place = tmp_path / kind
        place.mkdir()
        index = json.loads((folder / "model_index.json").read_text())
        (place / "model_index.json").write_text(json.dumps({**index, "_class_name": kind}))
        (place / "transformer").symlink_to(folder / "transformer")
        with pytest.raises(RequestError, match=message):
            family_of(place)


def test_sprints_scheduler_in_another_pipeline_is_a_sentence(sana: Path, sprint: Path, tmp_path: Path) -> None:
    for folder, other, message in (
        (sana, sprint, "SCMScheduler does not work as its stock pipeline uses it"),
        (sprint, sana, "cannot be told intermediate_timesteps"),
    ):
        place = tmp_path / folder.parent.name
        place.mkdir()
        for part in folder.iterdir():
            if part.is_dir():
                (place / part.name).symlink_to((other if part.name == "scheduler" else folder) / part.name)
        index, theirs = (json.loads((root / "model_index.json").read_text()) for root in (folder, other))
        (place / "model_index.json").write_text(json.dumps({**index, "scheduler": theirs["scheduler"]}))
        with pytest.raises(RequestError, match=message):
            DiffusersGenerator.load(str(place), 1.0).check_exportable()


HEADERS = 2**16
"""A safetensors file has a header, and a pickled checkpoint a little for each tensor."""
TABLE = 300 * 2304
"""The empty caption's embedding, which the authors' checkpoints hold beside the network."""
PLACES = 32 * 32
"""Positions of a latent at 1024 pixels; checkpoints hold their sines."""


@pytest.mark.parametrize(
    ("name", "part", "parameters", "size", "width"),
    [
        ("sana-1.5", "vae", 312_250_275, 1_249_046_372, 4),
        ("sana-1.5", "text_encoder", 2_614_341_888, 5_228_717_512, 2),
    ],
)
def test_the_parts_are_as_large_as_their_published_files(
    name: str, part: str, parameters: int, size: int, width: int
) -> None:
    with torch.device("meta"):
        count = parameter_count(find_pipeline(name).build(part))
    assert count == parameters and 0 <= size - width * count < HEADERS


@pytest.mark.parametrize(
    ("name", "parameters", "checkpoint"),
    [
        ("sana", 1_604_462_752, None),
        ("sana-0.6b-512", 591_747_872, None),
        ("sana-1.5", 1_604_641_952, None),
        ("sana-1.5-4.8b", 4_721_825_952, None),
        ("sana-sprint", 1_610_237_472, 6_453_060_642),
        ("sana-sprint-0.6b", 593_501_216, 2_381_713_754),
        ("sana-sprint-teacher", 1_604_641_952, 6_430_670_590),
        ("sana-sprint-teacher-0.6b", 591_876_896, 2_375_214_166),
    ],
)
def test_the_transformers_have_the_published_sizes(name: str, parameters: int, checkpoint: int | None) -> None:
    blueprint = find_pipeline(name)
    with torch.device("meta"):
        transformer = blueprint.build("transformer")
    side = 16 if "512" in name else 32
    assert parameter_count(transformer) == parameters and blueprint.latent_shape == (32, side, side)
    if checkpoint is not None:  # float32
        beside = TABLE + PLACES * transformer.config.cross_attention_dim  # type: ignore[union-attr]
        assert 0 < checkpoint - 4 * (parameters + beside) < 4 * HEADERS
