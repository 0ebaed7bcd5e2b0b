"""Published generators in their published layouts, by their names: see `benchmarks/published_world`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.published_world import layouts
from benchmarks.published_world import run as benchmark
from benchmarks.published_world.row import look_at
from dipp_cli.app import main
from dipp_toolkit.models.loading import load_generator
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.registry import get_registry

ROOT = Path(__file__).parents[2]
QUICK = ("distar-sdxl", "sdxl-dmd2", "hyper-sdxl", "sdxl-lightning", "pixart-dmd", "hyper-sd15", "sd35-large-turbo")


@pytest.mark.parametrize("kind", ["generator", "reference"])
def test_every_published_name_is_in_the_table(kind: str) -> None:
    entries = get_registry().entries[kind].values()
    published = {entry.name for entry in entries if entry.origin is not None and entry.origin.hub}
    trainable = {name for name in published if name.endswith("-onestep")}  # a reference's network, read out once
    assert {layout.name for layout in layouts.LAYOUTS if layout.kind == kind} == published - trainable


@pytest.mark.parametrize("name", QUICK)
def test_the_name_draws_what_the_published_call_of_stock_diffusers_draws(name: str, tmp_path: Path) -> None:
    layout = next(each for each in layouts.LAYOUTS if each.name == name)
    row = look_at(layout, tmp_path, modes=())
    assert row.holds, row.problem or row.stock


def test_a_row_is_trained_and_its_export_is_drawn_from(tmp_path: Path) -> None:
    layout = next(each for each in layouts.LAYOUTS if each.name == "sdxl-turbo")
    row = look_at(layout, tmp_path, modes=("lora",))
    assert row.holds, row.problem or row.exported
    assert row.trained == {"lora": True}


def test_a_row_fails_where_the_name_is_read_out_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = next(each for each in layouts.LAYOUTS if each.name == "pixart-dmd")
    wrong = replace(layout, call=lambda pipeline, noise: layouts.stock.lcm(pipeline, noise, 440, clean_caption=False))
    monkeypatch.setattr(benchmark, "LAYOUTS", (wrong,))
    monkeypatch.setattr(benchmark, "look_at", lambda one, folder: look_at(one, folder, modes=()))
    assert benchmark.main([]) == 1
    assert "`pixart-dmd` **fails**" in capsys.readouterr().out


def test_a_reference_is_asked_for_half_its_size_and_told_so(tmp_path: Path) -> None:
    twin = str(write_twin("StableDiffusionXLPipeline", tmp_path / "twin"))
    whole, half = DiffusersReference.load(twin), DiffusersReference.load(twin, shrink=2)
    assert half.latent_shape == (4, *(side // 2 for side in whole.latent_shape[1:]))
    sizes = [reference.encode(["a cat"]).tensors["time_ids"][0].tolist() for reference in (whole, half)]
    assert sizes == [[16, 16, 0, 0, 16, 16], [8, 8, 0, 0, 8, 8]]


def test_a_name_is_loaded_with_what_its_record_says(tmp_path: Path) -> None:
    layout = next(each for each in layouts.LAYOUTS if each.name == "sdxl-lightning")
    cache = layouts.HubCache(tmp_path)
    with cache.used():
        layout.write(cache, layouts.model_of("generator", layout.name))
        generator: Any = load_generator(layout.name)
        asked: Any = load_generator(layout.name, readout=0.5, input_scale="unit")
    assert (generator.readout, generator.input_scale, generator.denoiser.prediction) == (1.0, "sigma", "sample")
    assert (asked.readout, asked.input_scale) == (0.5, "unit")
    with cache.used():
        base: Any = DiffusersReference.load(layouts.model_of("reference", "sdxl").pipeline)
    assert not torch.equal(next(generator.network.parameters()), next(base.network.parameters()))


def test_a_published_reference_with_a_generators_weights_is_that_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--generator sdxl --set weights=...` draws and trains as the name of those weights does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIPP_CACHE", "cache")
    Path("prompts.txt").write_text("a red fox\n")
    weights = ["--set", "weights=ByteDance/Hyper-SD:Hyper-SDXL-1step-Unet.safetensors", "--set", "readout=800/999"]
    words = ["--device", "cpu", "--prompts", "prompts.txt"]
    cache = layouts.HubCache(tmp_path / "hub")
    with cache.used():
        layout = next(each for each in layouts.LAYOUTS if each.name == "hyper-sdxl")
        layout.write(cache, layouts.model_of("generator", layout.name))
        assert main(["generate", "--generator", "hyper-sdxl", *words, "--out", "a"]) == 0
        assert main(["generate", "--generator", "sdxl", *weights, *words, "--out", "b"]) == 0
        (first,), (second,) = (list(Path(folder).glob("001-*.png")) for folder in "ab")
        assert first.read_bytes() == second.read_bytes()
        small = ["--steps", "1", "--batch-size", "1", "--set", "lora_rank=2", "--set", "reference_steps=2", "--quiet"]
        assert main(["train", "--generator", "sdxl", *weights, *words, *small, "--out", "run"]) == 0
    assert (tmp_path / "run" / "final" / "model_index.json").is_file()


def test_networks_that_read_other_embeddings_are_refused_by_the_names_that_were_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("a red fox\n")
    words = ["--generator", "sd-turbo", "--reference", "sd15"]
    for command in (["train", *words, "--prompts", "prompts.txt", "--dry-run"], ["plan", *words]):
        assert main(command) == 2
        error = " ".join(capsys.readouterr().err.split())
        assert "The network of the generator sd-turbo (StableDiffusionPipeline) reads 1024 channels" in error
        assert "that of the reference sd15 (StableDiffusionPipeline) 768" in error and str(ROOT) not in error


@pytest.mark.exhaustive
def test_the_whole_table(capsys: pytest.CaptureFixture[str]) -> None:
    code = benchmark.main([])
    with capsys.disabled():
        print(capsys.readouterr().out)
    assert code == 0
