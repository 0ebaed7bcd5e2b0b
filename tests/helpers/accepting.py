"""Twins that are accepted: a reference, and a generator that a training left in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dipp_cli.app import main
from dipp_toolkit.models.loading import load_generator
from dipp_toolkit.models.tiny_pipelines import write_twin

QUICK = (
    "--device", "cpu", "--set", "precision=fp32", "--set", "steps=2", "--set", "eval_count=3", "--set", "batch_size=2",
    "--set", "assistant_warmup=1",
)  # fmt: skip
TRAINING = ("step", "pull", "align")


def write_pair(folder: Path, pipeline: str = "PixArtAlphaPipeline") -> tuple[Path, Path]:
    """A reference and a one-step generator of the same parts, exported as a training exports it."""
    reference = write_twin(pipeline, folder / "reference")
    generator = load_generator(str(reference), readout=440 / 999, input_scale="sigma")
    with torch.no_grad():
        for parameter in generator.network.parameters():
            parameter.mul_(1.1)
    generator.save_pretrained(folder / "generator")
    return folder / "generator", reference


def accepted(folder: Path, *words: str, skip: Sequence[str] = ()) -> tuple[int, dict[str, Any]]:
    """The exit code of `dipp accept`, and the row that it wrote."""
    out = folder / "row.json"
    left = [word for name in skip for word in ("--skip", name)]
    code = main(["accept", *words, *QUICK, *left, "--out", str(out)])
    return code, json.loads(out.read_text(encoding="utf-8"))


def verdicts(row: dict[str, Any], check: str) -> dict[str, str]:
    """The verdicts of a check's rows, by what was compared."""
    return {item["compared"]: item["verdict"] for item in row["checks"] if item["check"] == check}


def failing(row: dict[str, Any]) -> dict[str, str]:
    """What fails, with the reasons."""
    return {f"{item['check']}: {item['compared']}": item["why"] for item in row["checks"] if item["verdict"] == "fail"}


def edit(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
