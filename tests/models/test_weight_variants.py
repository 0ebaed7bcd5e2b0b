"""Pipelines whose weights are there as fp16 variants alone, in one file or in shards, as their authors publish them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from dipp_toolkit import load_generator, load_reference
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.components import load_component
from dipp_toolkit.models.files.folders import quiet_loading
from dipp_toolkit.models.files.weight_files import WeightFiles, choose_weights, plain_name, weights_in
from dipp_toolkit.models.sampling import fixed_noise, sample_reference
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.monitoring.interval import bytes_of_networks
from dipp_toolkit.prompts.cache import encoder_folder

PROMPTS = ["a red fox on blue", "birthday cake"]
UNET = "diffusion_pytorch_model"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["config.json"], None),
        ([f"{UNET}.safetensors", f"{UNET}.fp16.safetensors"], WeightFiles(None, (f"{UNET}.safetensors",))),
        ([f"{UNET}.fp16.safetensors", f"{UNET}.bin"], WeightFiles("fp16", (f"{UNET}.fp16.safetensors",))),
        (
            [f"{UNET}.non_ema.safetensors", f"{UNET}.bf16.safetensors", f"{UNET}.int8.safetensors"],
            WeightFiles("bf16", (f"{UNET}.bf16.safetensors",)),
        ),
        ([f"{UNET}.non_ema.safetensors"], WeightFiles("non_ema", (f"{UNET}.non_ema.safetensors",))),
        (
            [
                "model.fp16-00001-of-00002.safetensors",
                "model.fp16-00002-of-00002.safetensors",
                "model.safetensors.index.fp16.json",
            ],
            WeightFiles(
                "fp16",
                ("model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"),
                "model.safetensors.index.fp16.json",
            ),
        ),
        (
            [f"{UNET}-00001-of-00001.fp16.safetensors", f"{UNET}.safetensors.index.fp16.json"],
            WeightFiles("fp16", (f"{UNET}-00001-of-00001.fp16.safetensors",), f"{UNET}.safetensors.index.fp16.json"),
        ),
        (["model-00001-of-00002.safetensors", "model.safetensors.index.json"], None),
        (["model-00001-of-00001.safetensors"], None),
        (["others.safetensors", "pytorch_model.bin", "sd_xl_base_1.0.safetensors"], None),
    ],
)
def test_the_plain_files_come_before_variants_and_whole_sets_count(
    names: list[str], expected: WeightFiles | None
) -> None:
    assert choose_weights(names) == choose_weights(reversed(names)) == expected


def test_where_one_file_and_shards_lie_side_by_side_the_library_of_the_class_decides() -> None:
    for base, chosen in ((UNET, f"{UNET}-00001-of-00001.safetensors"), ("model", "model.safetensors")):
        names = [f"{base}.safetensors", f"{base}-00001-of-00001.safetensors", f"{base}.safetensors.index.json"]
        weights = choose_weights(names)
        assert weights is not None and weights.files == (chosen,)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("model.safetensors.index.fp16.json", "model.safetensors.index.json"),
        (f"{UNET}-00001-of-00002.fp16.safetensors", f"{UNET}-00001-of-00002.safetensors"),
        (f"{UNET}.fp16-00001-of-00002.safetensors", f"{UNET}-00001-of-00002.safetensors"),
        ("config.json", "config.json"),
    ],
)
def test_a_plain_name_has_no_variant(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def halved(source: Path, folder: Path, shard: str = "10GB", only: tuple[str, ...] = ()) -> Path:
    """A pipeline as its author saves it in half precision: every network as a variant, or some alone."""
    with quiet_loading():
        DiffusionPipeline.from_pretrained(source, torch_dtype=torch.float16).save_pretrained(
            folder, variant="fp16", max_shard_size=shard
        )
    for place in (path for path in folder.iterdir() if only and path.is_dir() and path.name not in only):
        shutil.rmtree(place)
        shutil.copytree(source / place.name, place)
    return folder


def stock_images(folder: Path, variant: str | None = None, **call: object) -> torch.Tensor:
    """What plain diffusers draws in float32."""
    with quiet_loading():
        pipeline = DiffusionPipeline.from_pretrained(folder, variant=variant, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    latents = fixed_noise(len(PROMPTS), (4, 8, 8), 0)
    images: torch.Tensor = pipeline(PROMPTS, latents=latents, output_type="pt", **call).images
    return images


@pytest.mark.parametrize(
    ("pipeline", "shard", "only"),
    [
        ("StableDiffusionPipeline", "10GB", ()),
        ("StableDiffusionXLPipeline", "10GB", ("unet", "text_encoder_2")),
        ("StableDiffusionXLPipeline", "30KB", ()),
    ],
)
def test_an_fp16_folder_loads_draws_and_is_exported_under_plain_names(
    tmp_path: Path, pipeline: str, shard: str, only: tuple[str, ...]
) -> None:
    folder = halved(write_twin(pipeline, tmp_path / "plain"), tmp_path / "half", shard, only)
    assert not list((folder / "unet").glob(f"{UNET}.safetensors"))
    if shard != "10GB":
        assert len(list((folder / "unet").glob(f"{UNET}.fp16-*.safetensors"))) > 1
    # Parts of an older format and of another precision beside what is read are not carried along.
    (folder / "vae" / f"{UNET}.bin").write_bytes(b"x")
    shutil.copy(next((folder / "unet").glob("*.safetensors")), folder / "unet" / f"{UNET}.non_ema.safetensors")

    reference = load_reference(str(folder))
    ours = sample_reference(reference, reference.encode(PROMPTS), 0, 2, 1.0)
    call = {"num_inference_steps": 2, "guidance_scale": 1.0}
    half = stock_images(folder, "fp16", **call)
    assert torch.allclose(ours, half, atol=1e-4)

    generator = load_generator(str(folder), readout=0.6)
    generator.save_pretrained(tmp_path / "final")
    names = sorted(path.name for path in (tmp_path / "final").rglob("*.*") if "safetensors" in path.name)
    assert names and not [name for name in names if "fp16" in name or "non_ema" in name]
    assert not list((tmp_path / "final").rglob("*.bin"))
    one = stock_images(tmp_path / "final", num_inference_steps=1, guidance_scale=1.0)
    with torch.no_grad():
        latents = generator.generate(fixed_noise(len(PROMPTS), (4, 8, 8), 0), reference.encode(PROMPTS))
    assert torch.allclose(reference.decode(latents), one, atol=1e-4)
    # The text encoder is the same one by its bytes wherever its files are called otherwise, unless they are cut.
    if shard == "10GB":
        assert encoder_folder(tmp_path, load_reference(str(tmp_path / "final")).encoder) == encoder_folder(
            tmp_path, reference.encoder
        )


def test_where_both_are_there_the_plain_weights_are_read(tmp_path: Path) -> None:
    folder = write_twin("StableDiffusionPipeline", tmp_path / "plain")
    half = halved(folder, tmp_path / "half")
    before = bytes_of_networks(folder)
    shutil.copy(half / "unet" / f"{UNET}.fp16.safetensors", folder / "unet")
    network = load_component(folder, "unet")
    for name, value in load_file(folder / "unet" / f"{UNET}.safetensors").items():
        assert torch.equal(network.state_dict()[name], value)
    assert bytes_of_networks(folder) == before


def test_what_is_missing_is_named_beside_what_is_there(tmp_path: Path) -> None:
    folder = halved(write_twin("StableDiffusionPipeline", tmp_path / "plain"), tmp_path / "half", "30KB")
    shards = sorted((folder / "unet").glob(f"{UNET}.fp16-*.safetensors"))
    shards[0].unlink()
    with pytest.raises(RequestError) as raised:
        load_reference(str(folder))
    assert "no set of .safetensors files is whole; there are" in str(raised.value)
    assert shards[1].name in str(raised.value)
    assert weights_in(folder / "unet") is None


def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = halved(write_twin("StableDiffusionPipeline", tmp_path / "plain"), tmp_path / "half", "30KB")
    path = folder / "unet" / f"{UNET}.safetensors.index.fp16.json"
    index = json.loads(path.read_text())
    index["weight_map"]["conv_in.weight"] = "../vae/diffusion_pytorch_model.fp16.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(RequestError, match=r"leads to '\.\./vae/diffusion_pytorch_model\.fp16\.safetensors'"):
        load_reference(str(folder))


def test_a_safety_checker_that_was_not_fetched_is_left_out_of_the_export(tmp_path: Path) -> None:
    folder = write_twin("StableDiffusionPipeline", tmp_path / "plain")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    index["requires_safety_checker"] = True
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "config.json").write_text("{}")
    reference = load_reference(str(folder))
    assert reference.encode(PROMPTS).tensors
    load_generator(str(folder), readout=0.6).save_pretrained(tmp_path / "final")
    saved = json.loads((tmp_path / "final" / "model_index.json").read_text())
    assert (saved["safety_checker"], saved["requires_safety_checker"]) == ([None, None], False)
    assert stock_images(tmp_path / "final", num_inference_steps=1, guidance_scale=1.0).isfinite().all()
