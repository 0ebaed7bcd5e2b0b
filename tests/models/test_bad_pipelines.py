"""Pipelines that cannot be used: one sentence each that says what to do, and nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dipp_cli.app import main
from dipp_toolkit.models.tiny_pipelines import write_twin
from tiny import PROMPTS


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    write_twin("StableDiffusionPipeline", tmp_path / "sd")
    return tmp_path


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def no_weights(world: Path) -> None:
    next((world / "sd" / "unet").glob("*.safetensors")).unlink()


def no_index(world: Path) -> None:
    (world / "sd" / "model_index.json").unlink()


def unknown_class(world: Path) -> None:
    edit(world / "sd" / "model_index.json", _class_name="StableCascadePipeline")


def foreign_code(world: Path) -> None:
    edit(world / "sd" / "model_index.json", unet=["my_package", "MyNetwork"])


def broken_weights(world: Path) -> None:
    next((world / "sd" / "unet").glob("*.safetensors")).write_bytes(b"not weights")


def no_scheduler(world: Path) -> None:
    (world / "sd" / "scheduler" / "scheduler_config.json").unlink()


@pytest.mark.parametrize(
    ("break_it", "parts"),
    [
        (no_weights, ["weights of 'unet' are missing", "no .safetensors file", "Copy the whole pipeline folder"]),
        (no_index, ["is not a diffusers pipeline", "model_index.json"]),
        (unknown_class, ["No plugin can load", "StableCascadePipeline"]),
        (foreign_code, ["comes from 'my_package'", "only diffusers and transformers are trusted"]),
        (broken_weights, ["weights of 'unet'", "cannot be loaded"]),
        (no_scheduler, ["scheduler_config.json"]),
    ],
    ids=lambda one: one.__name__ if callable(one) else None,
)
def test_a_folder_that_cannot_be_used(
    world: Path, break_it: Callable[[Path], None], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    break_it(world)
    assert (
        main(["train", "--generator", "./sd", "--reference", "./sd", "--prompts", "prompts.txt", "--out", "run"]) == 2
    )
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in parts:
        assert part in error
    assert not (world / "run").exists()


def test_latents_that_do_not_fit(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_twin("StableDiffusion3Pipeline", world / "sd3")
    assert main(["train", "--generator", "./sd", "--reference", "./sd3", "--prompts", "prompts.txt"]) == 2
    error = capsys.readouterr().err
    assert "shape (4, 8, 8) and the reference of shape (16, 8, 8)" in error
    assert "share a latent space" in error


def test_a_published_name_without_network_says_how_to_fetch(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--generator", "pixart-onestep", "--prompts", "prompts.txt", "--out", "run"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "hf download PixArt-alpha/PixArt-XL-2-512x512" in error
    assert not (world / "run").exists()


def test_a_prompt_over_the_limit(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (world / "long.txt").write_text("a cat " * 100)
    words = ["train", "--generator", "./sd", "--reference", "./sd", "--prompts", "long.txt", "--out", "run"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "and the text encoder reads 77" in error
    assert "long_prompts=cut" in error
    assert not (world / "run").exists()


def test_an_upload_nobody_may_make_is_refused_first(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--generator", "./sd", "--reference", "./sd", "--prompts", "prompts.txt", "--out", "run"]
    assert main([*words, "--push-to-hub", "nonsense"]) == 2
    assert "expected owner/name" in capsys.readouterr().err
    assert main([*words, "--push-to-hub", "some/body"]) == 2
    assert "hf auth login" in capsys.readouterr().err
    assert not (world / "run").exists()
