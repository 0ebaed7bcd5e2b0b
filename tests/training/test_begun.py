"""What a run was begun with: the same names with other things behind them are refused on resume, or told."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dipp_toolkit import TrainConfig
from dipp_toolkit.errors import CheckpointError
from dipp_toolkit.events import RunStartEvent
from dipp_toolkit.training.run import train
from dipp_toolkit.training.run_state import start_record
from dipp_toolkit.training.run_state.run_folder import RunFolder
from dipp_toolkit.training.run_state.start_record import StartRecord
from dipp_toolkit.training.setup.assembly import assemble
from dipp_toolkit.training.setup.resolve import resolve
from tiny import PROMPTS, tiny_pipeline

MINE = """
import torch
from helper import FACTOR


class Mine(torch.nn.Module):
    def __init__(self, weights=None, size=1.0):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, images, prompts):
        return images.mean((1, 2, 3)) * FACTOR
"""
SETTINGS: dict[str, Any] = {
    "generator": "./start", "reference": "./reference", "parts": "reference", "prompts": "prompts.txt",
    "eval_prompts": "held_out.txt", "rewards": {"./mine.py:Mine": 1.0},
    "reward_options": {"./mine.py:Mine": {"weights": "weights.bin"}}, "judge": "./judge.py:judge", "batch_size": 2,
    "steps": 1, "eval_count": 2, "reference_steps": 1, "out": "r", "sample_every": 100, "device": "cpu", "lora_rank": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def begun_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a finished run of one step in `r`, and all that it was made of."""
    folder = tmp_path_factory.mktemp("begun")
    tiny_pipeline(folder / "reference")
    tiny_pipeline(folder / "start", seed=1)
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    (folder / "held_out.txt").write_text("\n".join(reversed(PROMPTS)))
    (folder / "mine.py").write_text(MINE)
    (folder / "helper.py").write_text("FACTOR = 1.0\n")
    (folder / "judge.py").write_text("def judge(images, prompts):\n    return images.mean((1, 2, 3))\n")
    (folder / "weights.bin").write_bytes(b"12")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        train(TrainConfig(**SETTINGS))
        yield folder


@pytest.fixture
def world(begun_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which things can be changed."""
    shutil.copytree(begun_run, tmp_path / "world", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path / "world")
    monkeypatch.syspath_prepend(str(tmp_path / "world"))
    monkeypatch.delitem(sys.modules, "helper", raising=False)  # that of another test's world
    return tmp_path / "world"


class Warnings:
    """Keeps what a run says as it starts."""

    def dipp_on_run_start(self, event: RunStartEvent) -> None:
        self.said = event.warnings


def resumed(**changes: Any) -> list[str]:
    """The warnings of the run that goes on; those at its start are among those in its summary."""
    listener = Warnings()
    summary = train(TrainConfig(**SETTINGS | {"resume": True, "steps": 2} | changes), listeners=[listener]).summary
    assert set(listener.said) <= set(summary["warnings"])
    return list(listener.said)


def heavier(folder: Path) -> None:
    """Other weights in files of the same size."""
    (file,) = (folder / "transformer").glob("*.safetensors")
    save_file({name: value + 1e-3 for name, value in load_file(file).items()}, file, metadata={"format": "pt"})


def lines(name: str, change: Callable[[list[str]], list[str]]) -> None:
    path = Path(name)
    path.write_text("\n".join(change(path.read_text().splitlines())))


CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "order of prompts": (lambda: lines("prompts.txt", lambda old: old[::-1]), "prompts of prompts.txt differ (other"),
    "a prompt more": (lambda: lines("prompts.txt", lambda old: [*old, "a dog"]), "differ (4 then, 5 now)"),
    "held-out prompts": (lambda: lines("held_out.txt", lambda old: ["a sea", *old[1:]]), "comparison's prompts of"),
    "a file of the reward": (lambda: Path("weights.bin").write_bytes(b"21"), "the reward './mine.py:Mine' (sha256 "),
    "the reference": (lambda: heavier(Path("reference")), "the reference './reference' (sha256 "),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_other_content_behind_the_same_name_is_refused(world: Path, change: Callable[[], object], said: str) -> None:
    files = {path: path.read_bytes() for path in Path("r").rglob("*") if path.is_file()}
    change()
    with pytest.raises(CheckpointError) as error:
        resumed()
    sentence = str(error.value)
    assert said in sentence and sentence.startswith("Cannot resume r: something changed since the run began")
    assert sentence.endswith("begin a new run with what is there now: dipp train --config r/config.yaml")
    assert {path: path.read_bytes() for path in Path("r").rglob("*") if path.is_file()} == files


def test_what_changes_nothing_is_no_change(world: Path) -> None:
    lines("prompts.txt", lambda old: ["# mine", "", *old])
    (world / "reference" / "README.md").write_text("a new card")
    shutil.copytree("reference", "elsewhere")
    shutil.rmtree("reference")
    Path("elsewhere").rename("reference")
    assert resumed() == []


OWN_CODE: dict[str, tuple[str, str, str]] = {
    "the reward's file": ("mine.py", f"{MINE}\n", "the reward './mine.py:Mine'"),
    "what it imports": ("helper.py", "FACTOR = 2.0\n", "the reward './mine.py:Mine'"),
    "the judge": ("judge.py", "def judge(i, p):\n    return i.sum((1, 2, 3))\n", "the judge './judge.py:judge'"),
}


@pytest.mark.first_case
@pytest.mark.parametrize(("file", "content", "what"), OWN_CODE.values(), ids=OWN_CODE)
def test_code_that_was_mended_is_told_of(world: Path, file: str, content: str, what: str) -> None:
    """A run that its reward's mistake has stopped goes on once that is mended."""
    (world / file).write_text(content)
    (said,) = resumed()
    assert said.startswith(f"Changed since the run began: the code of {what} (sha256 ")
    assert "may not have been made alike" in said
    assert resumed(steps=3) == [said], "it stays true"
    report = (world / "r" / "report.html").read_text()
    assert "Changed since the run began" in report


def test_a_generator_that_the_checkpoint_replaces_is_told_of(world: Path) -> None:
    heavier(world / "start")
    (said,) = resumed()
    assert said.startswith("Changed since the run began: the generator './start' (sha256 ")
    assert said.endswith("Its weights come from the checkpoint.")


def test_a_generator_that_adapters_sit_on_is_refused(world: Path) -> None:
    settings = {"mode": "lora", "out": "adapters"}
    train(TrainConfig(**SETTINGS | settings))
    heavier(world / "start")
    with pytest.raises(CheckpointError, match=r"the generator './start' \(sha256"):
        resumed(**settings)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_another_number_of_threads_is_told_now_and_ever_after(world: Path, threads: None) -> None:
    first = torch.get_num_threads()
    torch.set_num_threads(first + 1)
    (said,) = resumed()
    assert said.startswith(f"From step 1 on the run went on with {first + 1} threads; it began with {first} threads.")
    assert "differ in their last digits" in said
    torch.set_num_threads(first)
    assert resumed(steps=3) == [said], "it stays what part of the run was made with"
    steps = [load["step"] for load in json.loads(Path("r/begun.json").read_text())["went_on"]]
    assert steps == [1, 2]


def test_a_run_of_before_goes_on_unchecked_and_is_remembered_from_then_on(world: Path) -> None:
    Path("r/begun.json").unlink()
    Path("helper.py").write_text("FACTOR = 2.0\n")
    assert resumed() == []
    Path("helper.py").write_text("FACTOR = 3.0\n")
    (said,) = resumed(steps=3)
    assert "the code of the reward './mine.py:Mine'" in said


def test_a_run_that_starts_over_begins_with_what_is_there_now(world: Path) -> None:
    shutil.rmtree("r/checkpoints")
    lines("prompts.txt", lambda old: old[::-1])
    assert resumed() == []


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "{}", '{"contents": 1, "machine": {}, "went_on": []}', "[" * 100_000, "\x00",
        '{"contents": {"the generator": []}, "machine": {}, "went_on": []}',
        '{"contents": {}, "machine": {}, "went_on": [{"step": "x", "machine": {}}]}',
    ],
)  # fmt: skip
def test_a_damaged_note_is_a_sentence_that_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "begun.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"begun\.json.* delete it if"):
        StartRecord.read(RunFolder(tmp_path))


def test_nothing_is_drawn_and_the_same_is_said_twice(world: Path) -> None:
    config = resolve(TrainConfig(**SETTINGS))
    parts = assemble(config)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    first = StartRecord.of(config, parts)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()
    assert first == StartRecord.of(config, parts)
    assert set(first.contents) == {
        "the prompts of prompts.txt", "the comparison's prompts of held_out.txt", "the reward './mine.py:Mine'",
        "the code of the reward './mine.py:Mine'", "the code of the judge './judge.py:judge'",
        "the reference './reference'", "the generator './start'",
    }  # fmt: skip


def test_a_pipeline_of_the_hub_counts_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(start_record, "file_digest", refuse)
    first, second = (tmp_path / "snapshots" / (digit * 40) for digit in "ab")
    for folder in (first, second):
        folder.mkdir(parents=True)
        (folder / "model_index.json").write_text("{}")
    assert start_record.pipeline_digest(first) != start_record.pipeline_digest(second)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.float64, torch.int64, torch.bool, torch.uint8])
def test_any_change_of_a_weight_shows(kind: torch.dtype) -> None:
    whole = torch.arange(5003, dtype=torch.float32).remainder(2).to(kind)
    other = whole.clone()
    other[4001] = 1 - other[4001].to(torch.uint8)
    swapped = whole.clone()
    swapped[0], swapped[5] = whole[5], whole[0]
    digests = {
        start_record.tensors_digest({"w": item}) for item in (whole, other, swapped, whole[1:], whole.reshape(1, -1))
    }
    assert len(digests) == 5
    assert start_record.tensors_digest({"w": whole.clone()}) in digests
    assert start_record.tensors_digest({"w": whole[:0]}) not in digests
