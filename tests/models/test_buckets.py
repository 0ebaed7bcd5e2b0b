"""The sizes of a run's images: texts, the arithmetic of buckets, and what each pipeline class can draw."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dipp_cli.app import main
from dipp_toolkit import RequestError, TrainConfig, generate
from dipp_toolkit.experiments.acceptance.plain_pipeline import plain_images, plain_pipeline
from dipp_toolkit.experiments.bench.entries import BenchEntry
from dipp_toolkit.models.blueprints import find_pipeline
from dipp_toolkit.models.buckets import Buckets, bucket, buckets
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.sizes import RECORD, asked_sizes, call_size, in_latents, in_pixels, recorded_sizes, rules_of
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.protocols import null_beside
from dipp_toolkit.training.publish import call_arguments
from dipp_toolkit.utils.image_sizes import aspect_words, parse_aspect, parse_size, parse_sizes, size_text, sizes_text
from tiny import PROMPTS

SDXL_PAPER = {"1:1": (1024, 1024), "4:3": (896, 1152), "3:4": (1152, 896), "16:9": (768, 1344), "9:16": (1344, 768)}
"""Height and width of buckets in appendix I of arXiv 2307.01952."""


@pytest.mark.parametrize("aspect", SDXL_PAPER)
def test_buckets_are_those_that_sdxl_was_trained_in(aspect: str) -> None:
    assert bucket(1024, parse_aspect(aspect), 64) == SDXL_PAPER[aspect]


@given(
    st.integers(16, 2048), st.integers(1, 40), st.integers(1, 40), st.sampled_from([8, 16, 32, 64])
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_no_other_size_is_nearer_to_area_and_aspect(resolution: int, width: int, height: int, unit: int) -> None:
    found = bucket(resolution, (width, height), unit)

    def distance(size: tuple[int, int]) -> float:
        area, aspect = math.prod(size) / resolution**2, size[1] / size[0] * height / width
        return abs(math.log(area)) + abs(math.log(aspect))

    assert all(side % unit == 0 and side >= unit for side in found)
    steps = [(down * unit, across * unit) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    others = [(found[0] + down, found[1] + across) for down, across in steps]
    assert all(distance(found) <= distance(other) + 1e-9 for other in others if min(other) > 0)
    assert bucket(resolution, (height, width), unit) == found[::-1]


def test_equal_sizes_are_one_bucket() -> None:
    assert buckets(64, [(1, 1), (20, 19), (2, 1)], 32) == ((64, 64), (64, 96))


def test_the_size_of_an_update_follows_from_the_seed_and_its_number() -> None:
    sizes = ((8, 8), (8, 12), (12, 8))
    drawn = [Buckets(sizes, 3).of_update(number) for number in range(-3, 600)]
    assert drawn == [Buckets(sizes, 3).of_update(number) for number in range(-3, 600)]
    assert drawn != [Buckets(sizes, 4).of_update(number) for number in range(-3, 600)]
    assert all(abs(count - 201) < 45 for count in Counter(drawn).values()) and len(Counter(drawn)) == 3


def test_sizes_are_read_as_they_are_written() -> None:
    assert parse_size("768x512") == (512, 768) and parse_size(" 768 X 512 ") == (512, 768)
    assert size_text((512, 768)) == "768x512"
    assert parse_sizes(sizes_text([(512, 768), (8, 16)])) == ((512, 768), (8, 16))
    assert parse_aspect("16:9") == (16, 9)
    assert [aspect_words(number) for number in (243, 969, "4:3")] == ["4:3", "16:9", "4:3"]


@pytest.mark.parametrize("text", ["768", "768x", "0x512", "768x512x3", "-768x512", "768*512", "٣x٤", ""])
def test_what_is_no_size_is_a_sentence(text: str) -> None:
    with pytest.raises(RequestError, match=r"is not the size of an image; expected WIDTHxHEIGHT in pixels: 768x512\."):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("4", "'4' is not an aspect"), ("4:0", "is not an aspect"), ("4:3:2", "is not an aspect"), ("9:1", "too long")],
)
def test_what_is_no_aspect_is_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(RequestError, match=rf"aspects.*{sentence}"):
        TrainConfig(aspects=text)


def test_the_settings_are_read_from_texts_lists_and_yaml(tmp_path: Path) -> None:
    expected = ("1:1", "4:3", "16:9")
    assert TrainConfig(aspects="1:1, 4:3,16:9,4:3").aspects == expected
    (tmp_path / "a.yaml").write_text("aspects: [1:1, 4:3, '16:9']\nresolution: 768\n")
    config = TrainConfig.from_yaml(tmp_path / "a.yaml")
    assert (config.aspects, config.resolution) == (expected, 768)
    (tmp_path / "b.yaml").write_text(config.to_yaml())
    assert TrainConfig.from_yaml(tmp_path / "b.yaml") == config
    (tmp_path / "c.yaml").write_text("aspects: 4:3\n")
    assert TrainConfig.from_yaml(tmp_path / "c.yaml").aspects == ("4:3",)
    with pytest.raises(RequestError, match="resolution"):
        TrainConfig(resolution=0)


@pytest.mark.parametrize(
    ("name", "unit", "most"),
    [
        ("sd15", 64, None), ("sdxl", 64, None), ("sd3", 16, 192 * 16), ("pixart-alpha", 16, None), ("flux", 16, None),
        ("flux2-klein", 16, None), ("qwen-image", 16, None), ("z-image", 16, 512 * 16), ("lumina2", 16, 512 * 16),
        ("sana", 32, None), ("hunyuan-dit", 16, None),
    ],
)  # fmt: skip
def test_published_models_draw_sides_of_these_multiples(name: str, unit: int, most: int | None) -> None:
    blueprint = find_pipeline(name)
    rules, family = rules_of(blueprint.folder, blueprint.family), blueprint.family
    pixels = in_pixels(blueprint.folder, family, [(1, 1)])[0][0]
    assert (rules.multiple * pixels, rules.most and rules.most * pixels) == (unit, most)
    own = blueprint.latent_shape
    assert asked_sizes(blueprint.folder, family, own, None, ("1:1",)) == (own[1:],)
    assert asked_sizes(blueprint.folder, family, own, None, ()) == ()
    wide = call_size(blueprint.folder, family, asked_sizes(blueprint.folder, family, own, 1024, ("4:3",))[0])
    assert wide["width"] / wide["height"] == pytest.approx(4 / 3, rel=0.05)
    assert wide["width"] * wide["height"] == pytest.approx(1024**2, rel=0.05)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_twin("StableDiffusionXLPipeline", tmp_path_factory.mktemp("sdxl") / "twin")


@pytest.fixture(scope="module")
def pixart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_twin("PixArtAlphaPipeline", tmp_path_factory.mktemp("pixart") / "twin")


def test_the_empty_prompt_is_given_the_size_of_the_one_beside_it(sdxl: Path) -> None:
    reference = DiffusersReference.load(str(sdxl))
    condition = reference.at_size(reference.encode(PROMPTS), (8, 16))
    assert condition.size == (8, 16) == condition[[0]].size == condition.to("cpu").size
    assert condition.tensors["time_ids"][0].tolist() == [16, 32, 0, 0, 16, 32]
    assert torch.equal(null_beside(reference, condition).tensors["time_ids"], condition.tensors["time_ids"])
    assert reference.null(1).tensors["time_ids"][0].tolist() == [16, 16, 0, 0, 16, 16]
    assert reference.sized((8, 16)).image_size == (16, 32) and reference.image_size == (16, 16)


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("PixArtAlphaPipeline", {"sample_size": 128}, {"resolution": [16, 24]}),
        ("HunyuanDiTPipeline", {"takes_size": True}, {"image_meta_size": [1024, 1024, 64, 96, 0, 0]}),
    ],
)
def test_a_network_that_takes_the_size_draws_like_stock_at_another(
    kind: str, options: dict[str, Any], told: dict[str, list[int]], tmp_path: Path
) -> None:
    """Their twins take none unless asked, so that the contract does not see it."""
    folder = write_twin(kind, tmp_path / "twin", **options)
    reference = DiffusersReference.load(str(folder)).sized((8, 12))
    condition, noise = reference.encode(PROMPTS), fixed_noise(len(PROMPTS), reference.latent_shape, 3)
    assert {name: condition.tensors[name][0].tolist() for name in told} == told
    ours = reference.decode(reference.sample(condition, noise, 3, 1.0))
    call = {**call_arguments(folder, 3), **call_size(folder, reference.family, (8, 12))}
    pipeline = plain_pipeline(folder, torch.float32, torch.device("cpu"))
    assert (ours - plain_images(pipeline, folder, PROMPTS, noise, call)).abs().max() < 1e-5


def test_a_pipeline_says_which_sizes_it_draws(pixart: Path, tmp_path: Path) -> None:
    family = DiffusersReference.load(str(pixart)).family
    assert in_latents(pixart, family, (16, 24)) == (8, 12)
    with pytest.raises(RequestError, match=r"draws no images of 25x16 pixels: both sides are multiples of 8.*24x16\."):
        in_latents(pixart, family, (16, 25))
    with pytest.raises(RequestError, match=r"is too small for .*Set resolution to 8 or more"):
        asked_sizes(pixart, family, (4, 8, 8), 3, ())
    with pytest.raises(RequestError, match="are too large; expected 67,108,864 numbers"):
        asked_sizes(pixart, family, (4, 8, 8), 100_000, ())
    table = write_twin("StableDiffusion3Pipeline", tmp_path / "sd3")
    with pytest.raises(
        RequestError, match=r"its network has places for 64 pixels a side. Ask for a smaller resolution"
    ):
        in_latents(table, DiffusersReference.load(str(table)).family, (16, 72))


def test_an_export_records_its_sizes_and_draws_the_first(sdxl: Path, tmp_path: Path) -> None:
    generator = DiffusersGenerator.load(str(sdxl)).sized([(8, 16), (16, 8)])
    generator.save_pretrained(tmp_path / "final")
    index = json.loads((tmp_path / "final" / "model_index.json").read_text())
    assert index[RECORD] == "32x16,16x32"
    again = DiffusersGenerator.load(str(tmp_path / "final"))
    assert (again.sizes, again.latent_shape) == (((8, 16), (16, 8)), (4, 8, 16))
    assert again.sized([]).latent_shape == (4, 8, 8) and DiffusersGenerator.load(str(sdxl)).sizes == ()
    arguments = call_arguments(tmp_path / "final", 1)
    assert (arguments["width"], arguments["height"]) == (32, 16)
    again.sized([]).save_pretrained(tmp_path / "plain")
    assert RECORD not in json.loads((tmp_path / "plain" / "model_index.json").read_text())
    assert [picture.size for picture in again(["a red cat"])] == [(32, 16)]
    assert again("a red cat", size="16x32").size == (16, 32) and again("a red cat").size == (32, 16)

    for damaged in ("32", 3, "33x16"):
        (tmp_path / "final" / "model_index.json").write_text(json.dumps(index | {RECORD: damaged}))
        with pytest.raises(RequestError, match=r"_image_sizes=.*expected sizes in pixels|multiples of"):
            recorded_sizes(tmp_path / "final", again.family)


def test_pictures_of_a_size_by_the_command_and_from_python(
    sdxl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = DiffusersGenerator.load(str(sdxl)).sized([(8, 16)])
    generator.save_pretrained(tmp_path / "wide")
    words = ["generate", "--prompt", "a red cat", "--reference", str(sdxl), "--json", "--out", str(tmp_path / "out")]
    sizes: dict[str, Any] = {}
    for name, more in {
        "own": ["--generator", str(tmp_path / "wide")],
        "named": ["--generator", str(tmp_path / "wide"), "--size", "16x32"],
        "reference": ["--steps", "1", "--size", "32x32"],
    }.items():
        assert main([*words, *more]) == 0, capsys.readouterr().err
        said = json.loads(capsys.readouterr().out)
        sizes[name] = (Image.open(said["images"][0]).size, said.get("size"))
    assert sizes == {"own": ((32, 16), None), "named": ((16, 32), "16x32"), "reference": ((32, 32), "32x32")}
    assert main([*words, "--size", "20x20", "--steps", "1"]) == 2
    assert "both sides are multiples of 16. Ask for 16x16." in capsys.readouterr().err
    assert main([*words, "--size", "wide"]) == 2
    assert "'wide' is not the size of an image" in capsys.readouterr().err

    (own,) = generate(str(tmp_path / "wide"), "a red cat", reference=str(sdxl))
    (named,) = generate(str(tmp_path / "wide"), "a red cat", reference=str(sdxl), size="16x32")
    assert (own.size, named.size) == ((32, 16), (16, 32))
    with pytest.raises(RequestError, match="not a diffusers pipeline and draws images of one size"):
        generate(WithoutSizes(), "a red cat", reference=str(sdxl), size="16x32")


class WithoutSizes:
    """A generator of somebody's own, of the twin's latents."""

    latent_shape = (4, 8, 8)
    network = torch.nn.Linear(1, 1)

    def generate(self, noise: torch.Tensor, condition: Any) -> torch.Tensor:
        return noise

    def save_pretrained(self, folder: Path, assistant: Any = None) -> None: ...


def test_a_bench_draws_a_generator_at_its_own_size(sdxl: Path, tmp_path: Path) -> None:
    DiffusersGenerator.load(str(sdxl)).sized([(8, 16)]).save_pretrained(tmp_path / "wide")
    sources = {
        folder.name: BenchEntry("a", str(folder), {"reference": str(sdxl)}).source(torch.device("cpu"))
        for folder in (tmp_path / "wide", sdxl)
    }
    assert sources["wide"].images(["a red cat"], [0]).shape == (1, 3, 16, 32)
    assert sources["wide"].fingerprint() != sources["twin"].at((16, 16)).fingerprint()
