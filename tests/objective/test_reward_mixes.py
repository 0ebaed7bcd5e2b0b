"""Mixes, floors and black boxes in whole runs, from the command line to the files."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from dipp_cli.app import main
from dipp_toolkit.training.run_state.checkpoint import newest_whole_checkpoint
from tiny_runs import colour_words, colour_world

COLOURS = """
def red(images, prompts):
    return images[:, 0].mean((1, 2))

def blue(images, prompts):
    return images[:, 2].mean((1, 2))

def against_red(images, prompts):
    return images[:, 2].mean((1, 2)) - 2 * images[:, 0].mean((1, 2))

def bytes_of(images, prompts):
    return [float(image.numpy().mean()) for image in images]
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixes")
    return colour_world(folder, COLOURS)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def words(world: Path, *more: str, steps: int = 3) -> list[str]:
    return colour_words(world, *more, steps=steps)


def metrics(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("balance", ["sum", "normalised", "pcgrad", "mgda"])
def test_every_balance_trains_and_logs_each_reward(world: Path, balance: str) -> None:
    rewards = f"{world}/colours.py:red=0.5,{world}/colours.py:blue=-2,colourfulness"
    more = ["--reward", rewards, "--balance", balance, "--set", "reward_clip=5", "--out", "run"]
    assert main(words(world, *more)) == 0
    row = metrics("run")[-1]
    for name in rewards.replace("=0.5", "").replace("=-2", "").split(","):
        for key in ("reward/{}", "deviation/reward/{}", "grad_norm/reward/{}", "clipped/reward/{}"):
            assert key.format(name) in row
    assert len([key for key in row if key.startswith("cosine/")]) == 6


def test_a_floor_holds_what_would_drop(world: Path) -> None:
    """The same run twice: a reward that pays for less red, and a floor under red."""
    held = f"{world}/colours.py:red"
    common = ["--reward", f"{world}/colours.py:against_red,{held}=0", "--set", "reward_scale=300"]
    common += ["--set", "learning_rate=2e-3", "--set", "sample_every=1000", "--batch-size", "16"]
    assert main(words(world, *common, "--out", "free", steps=120)) == 0
    start = statistics.mean(row[f"reward/{held}"] for row in metrics("free")[:5])
    # Where it is lowest: once the pixels are without red, the divergence brings some back.
    dropped = statistics.mean(row[f"reward/{held}"] for row in metrics("free")[10:40])
    level = start - 0.25 * (start - dropped)
    assert main(words(world, *common, "--floor", f"{held}={level}", "--out", "held", steps=120)) == 0
    late = [row[f"reward/{held}"] for row in metrics("held")[-30:]]
    assert dropped < level - 0.02
    assert statistics.mean(late) >= level
    lowest = min(statistics.mean(late[first : first + 5]) for first in range(0, 30, 5))  # one batch is noise
    assert lowest > (dropped + level) / 2


def test_a_floor_alone_brings_its_reward_along(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--reward", f"{world}/colours.py:blue", "--floor", "colourfulness=0.9", "--out", "run", "--json"]
    assert main(words(world, *more)) == 0
    summary = json.loads(capsys.readouterr().out)
    assert "colourfulness" in summary["rewards"]
    assert metrics("run")[-1]["multiplier/reward/colourfulness"] > 0
    report = Path("run/report.html").read_text()
    assert "floor 0.9" in report
    assert "Multipliers of the floors" in report


@pytest.mark.first_case
@pytest.mark.parametrize("kind", ["surrogate", "smoothing"])
def test_black_boxes_resume_to_the_bit(world: Path, kind: str) -> None:
    box = f"{world}/colours.py:bytes_of"
    more = ["--reward", f"{box},jpeg=0.1", "--set", f"black_box={kind}", "--set", "black_box_trust=-1"]
    more += ["--set", "black_box_pairs=2", "--set", "black_box_rounds=1", "--set", "checkpoint_every=2"]
    assert main(words(world, *more, "--out", "whole", steps=4)) == 0
    assert main(words(world, *more, "--out", "parts", steps=2)) == 0
    assert main(["train", "--resume", "--out", "parts", "--steps", "4", "--quiet"]) == 0
    measured = ("seconds", "images_per_second", "memory_mb")
    whole, parts = ([{k: v for k, v in row.items() if k not in measured} for row in metrics(text)] for text in
                    ("whole", "parts"))  # fmt: skip
    assert whole == parts
    state, _ = newest_whole_checkpoint(Path("parts/checkpoints"))
    assert state is not None and state["terms"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--floor", "colourfulness"], "The floor of the reward 'colourfulness' has no level"),
        (["--floor", "colourfulness=high"], "'high'; expected a number"),
        (["--floor", "colourfulnes=1"], "Did you mean 'colourfulness'?"),
        (["--balance", "mean"], "The setting balance cannot be 'mean'"),
        (["--set", "black_box=guess"], "The setting black_box cannot be 'guess'"),
        (["--set", "reward_clip=0"], "The setting reward_clip cannot be 0"),
    ],
)
def test_wrong_mixes_get_a_sentence(
    world: Path, more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(world, "--reward", "sharpness", *more)) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
