"""Whole runs on a tiny pipeline with rewards from a file: settings for `train`, words for the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dipp_toolkit.config import TrainConfig
from dipp_toolkit.training import train
from tiny import PROMPTS, tiny_pipeline

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
