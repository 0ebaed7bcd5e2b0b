"""A disk that is full wherever a run or a bench writes: a sentence with the file and the way on, then the same line.

One run is refused at every file it writes, one after another, and goes on each time; at its end it is the run that was
never refused.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dipp_cli.app import main
from dipp_toolkit import TrainConfig
from dipp_toolkit.report.run_files import read_run
from dipp_toolkit.training.guard import FileOfSkips
from dipp_toolkit.training.loop import MEASURED
from dipp_toolkit.training.run import train
from dipp_toolkit.training.run_state.checkpoint import checkpoints
from dipp_toolkit.utils import atomic
from dipp_toolkit.utils.jsonl import MetricsFile
from tiny_runs import tiny_world

# Files in the order in which a run writes them, and how often each is let through before the disk is full.
PHASES = {
    "config": ("config.yaml", 0),
    "monitor bases": ("monitors.safetensors", 0),
    "start comparison": ("samples/comparison/before-000.png", 0),
    "first sample": ("samples/step-00000000.png", 0),
    "metrics": ("metrics.jsonl", 1),
    "diagnostics": ("diagnostics.jsonl", 1),
    "reference's bases": ("monitors.safetensors", 0),
    "look": ("monitors.jsonl", 1),
    "checkpoint": ("checkpoints/step-00000002", 0),
    "sample": ("samples/step-00000004.png", 0),
    "export": ("final", 0),
    "comparison": ("samples/comparison/after-000.png", 0),
    "comparison's index": ("samples/comparison/comparison.json", 0),
    "model card": ("final/README.md", 0),
    "summary": ("summary.json", 0),
    "picture": ("before_after.png", 0),
    "report": ("report.html", 0),
}


@dataclass
class Disk:
    """Refuses one file.

    Attributes:
        full: path that is refused, or None.
        left: times that it is let through first.
        refused: whether it came to that.
    """

    full: Path | None = None
    left: int = 0
    refused: bool = False
    touched: set[str] = field(default_factory=set)

    def take(self, path: Path) -> None:
        self.touched.add(str(path))
        if path != self.full:
            return
        self.left -= 1
        if self.left < 0:
            self.refused = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(scope="module")
def disk() -> Iterator[Disk]:
    """Every write of the toolkit passes here: files and folders that get their names, and lines that are appended."""
    taken = Disk()
    replace, put, write = Path.replace, atomic.put_in_place, MetricsFile.write

    def replaced(self: Path, target: Path) -> Path:
        taken.take(Path(target))
        return replace(self, target)

    def put_in_place(beside: Path, folder: Path) -> None:
        taken.take(folder)
        put(beside, folder)

    def written(self: MetricsFile, row: Any) -> None:
        with atomic.naming(self.path):
            taken.take(self.path)
        write(self, row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", replaced)
        patch.setattr(atomic, "put_in_place", put_in_place)
        patch.setattr("dipp_toolkit.training.run_state.checkpoint.put_in_place", put_in_place)
        patch.setattr(MetricsFile, "write", written)
        yield taken


@dataclass
class Refusals:
    """What a run said wherever the disk was full, whether it had a checkpoint then, and both runs at their end."""

    said: dict[str, str]
    saved: dict[str, bool]
    parts: Path
    whole: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("full")
    return {
        **tiny_world(folder), "batch_size": 2, "steps": 4,
        "eval_count": 2, "reference_steps": 1, "rewards": {"colourfulness": 1.0}, "checkpoint_every": 2,
        "sample_every": 4, "monitor_every": 2, "monitor_count": 2, "diagnose_every": 2, "device": "cpu",
        "deterministic": True,
    }  # fmt: skip


@pytest.fixture(scope="module")
def refusals(world: dict[str, Any], disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Refusals:
    folder = tmp_path_factory.mktemp("runs")
    train(TrainConfig(**world, out=folder / "whole"))
    parts = folder / "parts"
    found = Refusals({}, {}, parts, folder / "whole")
    for phase, (name, let_through) in PHASES.items():
        disk.full, disk.left, disk.refused = parts / name, let_through, False
        begun = (parts / "config.yaml").is_file()
        try:
            train(TrainConfig(**world, out=parts, resume=begun))
        except Exception as error:  # noqa: BLE001 -- which kind it is, is looked at for each phase
            found.said[phase] = f"{type(error).__name__}: {error}"
        assert disk.refused, f"{phase}: the run never wrote {name}"
        found.saved[phase] = bool(checkpoints(parts / "checkpoints"))
    disk.full = None
    train(TrainConfig(**world, out=parts, resume=True))
    return found


@pytest.mark.parametrize("phase", PHASES)
def test_a_full_disk_is_said_with_the_file_and_the_way_on(refusals: Refusals, phase: str) -> None:
    said = refusals.said[phase]
    begins = "RequestError: Cannot write the run folder: " if phase == "config" else "RunError: The run stopped"
    assert said.startswith(begins) and "\n" not in said, said
    assert f"{refusals.parts / PHASES[phase][0]}: No space left on device. " in said
    assert "Free some space first. " in said
    ends = ("Run the same command again.", f"Go on with: dipp train --resume --out {refusals.parts}")
    assert said.endswith(ends[1:] if refusals.saved[phase] else ends)
    assert ("is whole." in said or " is saved." in said) == refusals.saved[phase], (
        "of a checkpoint only where there is one"
    )


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def test_after_all_that_the_run_is_the_one_that_was_never_refused(refusals: Refusals) -> None:
    parts, whole = refusals.parts, refusals.whole
    for name in ("metrics.jsonl", "monitors.jsonl", "diagnostics.jsonl"):
        assert rows_of(parts / name) == rows_of(whole / name), name
    pictures = sorted(path.relative_to(whole) for path in whole.rglob("*.png"))
    assert len(pictures) >= 5
    assert all((parts / picture).read_bytes() == (whole / picture).read_bytes() for picture in pictures)
    for path in (whole / "final").rglob("*.safetensors"):
        first, second = load_file(path), load_file(parts / path.relative_to(whole))
        assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert read_run(parts).summary["rewards"] == read_run(whole).summary["rewards"]
    assert (parts / "report.html").is_file() and (parts / "final" / "README.md").is_file()
    assert [path for path in parts.rglob(".*") if path.name.endswith((".partial", ".older"))] == []


def test_reasons_of_skipped_updates_are_named_by_their_file(disk: Disk, tmp_path: Path) -> None:
    skips = FileOfSkips(tmp_path / "skipped.jsonl", 3)
    disk.full, disk.left = tmp_path / "skipped.jsonl", 1  # made, and then full
    with pytest.raises(OSError) as caught:
        skips.note(4, ["the reference's prediction is not finite"])
    disk.full = None
    assert caught.value.filename == str(tmp_path / "skipped.jsonl")


BENCH = {
    "images": lambda path: path.suffix == ".png",
    "costs": lambda path: path.parent.name == "costs",
    "answers": lambda path: path.suffix == ".safetensors",
    "results": lambda path: path.name == "results.jsonl",
    "pairs": lambda path: path.name == "pairs.json",
}


def test_a_bench_goes_on_by_the_same_line_wherever_the_disk_was_full(
    world: dict[str, Any],
    disk: Disk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["bench", "--generators", f"a={world['generator']}", "--prompts", world["prompts"], "--quiet"]
    words += ["--rewards", "colourfulness", "--out", str(tmp_path / "bench"), "--device", "cpu"]
    for phase, is_its in BENCH.items():
        refused: list[Path] = []

        def take(path: Path, is_its: Any = is_its, refused: list[Path] = refused) -> None:
            if is_its(path):
                refused.append(path)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(disk, "take", take)
        assert main(words) == 1, phase
        said = capsys.readouterr().err
        assert f"{refused[0]}: No space left on device. Free some space first. Run the same command again" in said, said
    monkeypatch.undo()
    assert main(words) == 0
    assert (tmp_path / "bench" / "pairs.json").is_file()
    assert list((tmp_path / "bench").rglob("*.partial")) == []
