"""What is fetched of a hub's repository, by recorded listings of the real ones: what is needed, and nothing twice.

A listing says where it is from, and what of it is written down from the repository's layout alone.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file

from dipp_toolkit import load_generator, load_reference
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.files.download_lists import network_files, pipeline_files
from dipp_toolkit.models.files.folders import resolve_folder
from dipp_toolkit.models.tiny_pipelines import write_twin
from hub_errors import hub_error

LISTINGS = Path(__file__).parent / "listings"
UNET, T5 = "diffusion_pytorch_model", "model-0000{}-of-00002"
BEFORE = {
    "allow_patterns": ["*/*", "model_index.json"],
    "ignore_patterns": ["*.bin", "*.ckpt", "*.pt", "*.msgpack", "*.onnx*", "*.h5", "*.xml", "*.fp16.safetensors"],
}
"""What used to be asked for, whatever a repository has."""


def sharded(place: str, base: str, count: int) -> list[str]:
    shards = [f"{place}/{base}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    return [*shards, f"{place}/{base}.safetensors.index.json"]


SDXL = [f"{place}/model{{}}.safetensors" for place in ("text_encoder", "text_encoder_2")]
SDXL += [f"{place}/{UNET}{{}}.safetensors" for place in ("unet", "vae")]
SD = ["text_encoder/model.safetensors", f"unet/{UNET}.safetensors", f"vae/{UNET}.safetensors"]
FLUX = ["text_encoder/model.safetensors", *sharded("text_encoder_2", "model", 2), *sharded("transformer", UNET, 3)]
SD3 = ["text_encoder/model.safetensors", "text_encoder_2/model.safetensors", *sharded("text_encoder_3", "model", 2)]
VAE = f"vae/{UNET}.safetensors"
WEIGHTS = {
    "sd15": SD,
    "sd-turbo": SD,
    "sdxl": [name.format("") for name in SDXL],
    "sdxl-turbo": [name.format("") for name in SDXL],
    "diff-instruct-sdxl": [name.format(".fp16") for name in SDXL],
    "sd3": [*SD3, f"transformer/{UNET}.safetensors", VAE],
    "sd35-large": [*SD3, *sharded("transformer", UNET, 2), VAE],
    "flux-dev": [*FLUX, VAE],
    "flux-schnell": [*FLUX, VAE],
    "pixart-alpha": [*sharded("text_encoder", "model", 2), f"transformer/{UNET}.safetensors", VAE],
    "pixart-dmd": [f"transformer/{UNET}.bin"],
}
BYTES = {
    "sd15": (8_920_286_018, 4_266_136_652),
    "sdxl": (14_212_451_628, 13_877_808_360),
    "sd35-large": (53_468_221_189, 27_626_270_581),
    "flux-dev": (33_744_898_075, 33_744_898_075),
}
"""Of files over 1 MiB, before and now, where the listing has their sizes to the byte."""


def listing(name: str) -> tuple[dict[str, int], dict[str, Any]]:
    content = json.loads((LISTINGS / f"{name}.json").read_text())
    index = {part: ["library", kind] if kind else [None, None] for part, kind in content["components"].items()}
    return {file: size or 0 for file, size in content["files"].items()}, {"_class_name": "Pipeline", **index}


def test_every_listing_says_where_it_is_from() -> None:
    assert {path.stem for path in LISTINGS.glob("*.json")} == WEIGHTS.keys()
    for path in LISTINGS.glob("*.json"):
        assert json.loads(path.read_text())["source"]


@pytest.mark.parametrize("name", WEIGHTS)
def test_exactly_what_is_needed_is_fetched(name: str) -> None:
    files, index = listing(name)
    needed = pipeline_files(files, index)
    assert len(needed) == len(set(needed)) and set(needed) <= files.keys()
    assert "model_index.json" in needed
    small = [file for file in needed if not re.search(r"\.(safetensors|bin)(\.index.*)?$", file)]
    assert sorted(set(needed) - set(small)) == sorted(WEIGHTS[name])
    for part in index:
        if part.startswith("tokenizer"):
            assert [file for file in files if file.startswith(f"{part}/")] == sorted(
                file for file in needed if file.startswith(f"{part}/")
            )
        elif part != "safety_checker" and any(file.startswith(f"{part}/") for file in files):
            assert any(re.fullmatch(rf"{part}/\w*config\.json", file) for file in small), part
    assert not [file for file in needed if file.partition("/")[0] not in (*index, "model_index.json", "README.md")]
    assert ("README.md" in needed) == ("README.md" in files)


@pytest.mark.parametrize("name", BYTES)
def test_so_many_bytes_are_fetched_before_and_now(name: str) -> None:
    files, index = listing(name)
    before = sum(files[file] for file in filter_repo_objects(list(files), **BEFORE))
    assert (before, sum(files[file] for file in pipeline_files(files, index))) == BYTES[name]


def test_a_bare_network_is_its_configuration_and_one_set_of_weights() -> None:
    files = [
        "README.md",
        "config.json",
        f"{UNET}.safetensors",
        f"{UNET}.fp16.safetensors",
        "lora.safetensors",
        "a/b.json",
    ]
    assert network_files(files, "") == ["config.json", f"{UNET}.safetensors"]
    assert network_files(files, "a") == ["a/b.json"]
    assert network_files(files, "unet") == []


class Hub:
    """A hub with one repository in a folder; what is fetched of it lies in a snapshot of its own, as in the cache."""

    def __init__(self, repository: Path, cache: Path) -> None:
        self.repository, self.snapshot, self.fetched = repository, cache / "models--owner--name" / "snapshots" / "0", []
        self.error: Exception | None = None

    def listing(self, *_: object, **__: object) -> list[str]:
        if self.error is not None:
            raise self.error
        return [path.relative_to(self.repository).as_posix() for path in self.repository.rglob("*") if path.is_file()]

    def fetch(self, hub: str, filename: str, **_: object) -> str:
        place = self.snapshot / filename
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.repository / filename, place)
        self.fetched.append(filename)
        return str(place)

    def download(self, hub: str, allow_patterns: list[str], local_files_only: bool = False, **_: object) -> str:
        if local_files_only and not self.snapshot.is_dir():
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
        if not local_files_only:
            for name in filter_repo_objects(self.listing(), allow_patterns=allow_patterns):
                self.fetch(hub, name)
        return str(self.snapshot)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "cache"))
    place = write_twin("StableDiffusionPipeline", tmp_path / "repository")
    one = Hub(place, tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", one.listing)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", one.download)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", one.fetch)
    return one


def test_a_pipeline_comes_without_what_lies_beside_it(hub: Hub) -> None:
    for name in (
        f"unet/{UNET}.fp16.safetensors",
        f"unet/{UNET}.non_ema.safetensors",
        f"unet/{UNET}.bin",
        "sd.safetensors",
    ):
        (hub.repository / name).write_bytes(b"too much")
    reference = load_reference("owner/name")
    assert reference.folder == hub.snapshot
    assert not [name for name in hub.fetched if "fp16" in name or "non_ema" in name or name.endswith(".bin")]
    assert len(list(hub.snapshot.rglob("*.safetensors"))) == 3
    hub.error = OfflineModeIsEnabled("offline")
    assert resolve_folder("owner/name") == hub.snapshot


def test_a_bare_network_comes_from_a_repository_or_a_folder_of_one(hub: Hub) -> None:
    write_twin("StableDiffusionPipeline", Path("base"), seed=5)
    expected = load_file(hub.repository / "unet" / f"{UNET}.safetensors")
    for text in ("owner/name", "owner/name:unet"):
        shutil.rmtree(hub.snapshot, ignore_errors=True)
        hub.fetched.clear()
        generator = load_generator("./base", weights=text)
        assert torch.equal(generator.network.state_dict()["conv_in.weight"], expected["conv_in.weight"])
        assert sorted(hub.fetched) == ["unet/config.json", f"unet/{UNET}.safetensors"]
    with pytest.raises(RequestError, match="owner/name has no folder transformer"):
        load_generator("./base", weights="owner/name:transformer")


def test_a_pickled_network_of_a_pipeline_is_converted_once_and_exported_as_safetensors(hub: Hub) -> None:
    """As PixArt-Alpha-DMD's transformer; a text encoder whose tensors share memory as well."""
    plain = load_reference(str(hub.repository))
    for place, base in (("unet", UNET), ("text_encoder", "model")):
        path = hub.repository / place / f"{base}.safetensors"
        torch.save(
            load_file(path),
            path.with_name(f"{base.replace('model', 'pytorch_model') if base == 'model' else base}.bin"),
        )
        path.unlink()
    reference = load_reference("owner/name")
    assert torch.equal(reference.network.state_dict()["conv_in.weight"], plain.network.state_dict()["conv_in.weight"])
    prompts = ["a red fox on blue"]
    for name, tensor in plain.encode(prompts).tensors.items():
        assert torch.equal(reference.encode(prompts).tensors[name], tensor)
    assert len(list(Path("cache/converted").glob("*/*.safetensors"))) == 2
    load_generator("owner/name", readout=0.6).save_pretrained(Path("final"))
    assert not list(Path("final").rglob("*.bin"))
    load_reference("./final").encode(prompts)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (hub_error(RepositoryNotFoundError), ("The hub has no repository owner/name", "name another copy")),
        (hub_error(GatedRepoError), ("is gated: accept its licence at https://huggingface.co/owner/name",)),
        (OfflineModeIsEnabled("offline"), ("cannot be reached", "'hf download owner/name'")),
        (ConnectionError("no route"), ("cannot be reached", "'hf download owner/name'")),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_the_hub_says_about_a_pipeline_is_one_sentence(hub: Hub, error: Exception, words: tuple[str, ...]) -> None:
    hub.error = error
    for load in (load_reference, load_generator):
        with pytest.raises(RequestError) as raised:
            load("owner/name")
        assert "\n" not in str(raised.value)
        assert all(word in str(raised.value) for word in words), str(raised.value)
    assert not hub.snapshot.exists()


def test_a_repository_of_single_files_says_how_they_are_used(hub: Hub) -> None:
    shutil.rmtree(hub.repository)
    hub.repository.mkdir()
    (hub.repository / "Hyper-SDXL-1step-Unet.safetensors").write_bytes(b"x")
    with pytest.raises(RequestError, match=r"--set weights=owner/name:Hyper-SDXL-1step-Unet\.safetensors"):
        load_generator("owner/name")
