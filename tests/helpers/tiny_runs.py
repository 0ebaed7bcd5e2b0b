"""Whole runs on a tiny pipeline with rewards from a file: settings for `train`, words for the command line."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from dipp_toolkit.config import TrainConfig
from dipp_toolkit.events import StepEvent
from dipp_toolkit.training.run import MEASURED, train
from tiny import PROMPTS, tiny_pipeline

BLUE = """
def blueness(images, prompts):
    return images[:, 2].mean((1, 2)) - images[:, :2].mean((1, 2, 3))
"""
"""The text of a file with a reward."""

Run = Callable[..., Path]
"""Trains under a name with some settings changed; returns the folder."""


def runs_in(place: Path, settings: Mapping[str, Any]) -> Run:
    """What starts runs of these settings in a place, each in a folder of its name."""

    def start(name: str, listeners: Any = (), **changes: Any) -> Path:
        folder = place / name
        train(TrainConfig(**{**settings, "out": folder, **changes}), listeners=listeners)
        return folder

    return start


def file_of_prompts(folder: Path) -> Path:
    """The tiny prompts, a line each."""
    path = folder / "prompts.txt"
    path.write_text("\n".join(PROMPTS))
    return path


def tiny_world(folder: Path) -> dict[str, str]:
    """A tiny pipeline and its prompts in a folder, as the settings of a run that aligns it."""
    tiny = str(tiny_pipeline(folder / "tiny"))
    return {"generator": tiny, "reference": tiny, "prompts": str(file_of_prompts(folder))}


def blue_settings(folder: Path, reward: str, **settings: Any) -> dict[str, Any]:
    """Settings of a distillation of a tiny pipeline with the function `blueness` of a file as its reward.

    Args:
        folder: what the pipeline, the prompts and the file go into.
        reward: the file's text.
        settings: further ones, or others.
    """
    (folder / "blue.py").write_text(reward)
    return {
        "reference": str(tiny_pipeline(folder / "reference")), "prompts": str(file_of_prompts(folder)),
        "rewards": {f"{folder}/blue.py:blueness": 1.0}, "batch_size": 3, "eval_count": 3, "reference_steps": 1,
        "learning_rate": 1e-3, "checkpoint_every": 3, "sample_every": 20, "device": "cpu", "steps": 6, **settings,
    }  # fmt: skip


def colour_world(folder: Path, colours: str) -> Path:
    """A folder with a tiny pipeline, prompts and a file of rewards on colours."""
    tiny_pipeline(folder / "tiny")
    file_of_prompts(folder)
    (folder / "colours.py").write_text(colours)
    return folder


def colour_words(world: Path, *more: str, steps: int) -> list[str]:
    """`dipp train` in such a world, a few updates of four samples."""
    tiny, prompts = str(world / "tiny"), str(world / "prompts.txt")
    quick = ["--steps", str(steps), "--batch-size", "4", "--set", "eval_count=2", "--set", "reference_steps=1"]
    return ["train", "--generator", tiny, "--reference", tiny, "--prompts", prompts, "--quiet", *quick, *more]


def metrics(folder: Path) -> list[dict[str, float]]:
    """A run's metrics without those that are measured, such as seconds."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint."""
    return load_file(folder / "checkpoints" / f"step-{step:08d}" / "state.safetensors")


def assert_same_bits(a: Path, b: Path, step: int) -> None:
    """Two runs have the same checkpoint after a step, the same metrics and the same picture."""
    first, second = weights(a, step), weights(b, step)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert metrics(a) == metrics(b)
    assert (a / "before_after.png").read_bytes() == (b / "before_after.png").read_bytes()


class StopAt:
    """Sends this process a signal during a step."""

    def __init__(self, step: int, number: signal.Signals):
        self.step, self.number = step, number

    def dipp_on_step(self, event: StepEvent) -> None:
        if event.step == self.step:
            os.kill(os.getpid(), self.number)
