"""Faults injected into whole runs: bad numbers in every part, a disk that is full, a folder that cannot be written."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_toolkit import TrainConfig
from dipp_toolkit.config import make_config
from dipp_toolkit.errors import DippError, RequestError, RunError
from dipp_toolkit.training.listeners import Broadcast
from dipp_toolkit.training.loop import TrainingLoop
from dipp_toolkit.training.optim import LossScale
from dipp_toolkit.training.run import train
from dipp_toolkit.training.run_state.checkpoint import checkpoints, load_checkpoint
from dipp_toolkit.training.run_state.run_folder import RunFolder
from dipp_toolkit.training.setup.assembly import assemble
from dipp_toolkit.training.setup.resolve import resolve
from dipp_toolkit.training.stepping import StopRequest, run_steps
from tiny_runs import tiny_world

BAD = float("nan")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("faults")
    return {
        **tiny_world(folder), "batch_size": 4, "steps": 8,
        "eval_count": 2, "reference_steps": 1, "rewards": {"colourfulness": 1.0}, "checkpoint_every": 2,
        "sample_every": 1000,
    }  # fmt: skip


@pytest.fixture
def loop(settings: dict[str, Any], tmp_path: Path) -> TrainingLoop:
    config = resolve(make_config({**settings, "out": tmp_path / "run"}))
    folder = RunFolder(tmp_path / "run")
    folder.create(config)
    return TrainingLoop(config, assemble(config), folder)


def go(loop: TrainingLoop) -> None:
    run_steps(loop, StopRequest(), Broadcast([]))


def during(loop: TrainingLoop, steps: range, break_it: Callable[[Any], Any], name: str, owner: Any) -> None:
    """Replace a method while the run is in these steps, counted from 1."""
    whole = getattr(owner, name)

    def broken(*given: Any, **named: Any) -> Any:
        found = whole(*given, **named)
        return break_it(found) if loop.step + 1 in steps else found

    setattr(owner, name, broken)


def spoil(found: Any) -> Any:
    """No numbers in place of numbers; of a reward's scores and gradient, in place of the gradient."""
    return (*found[:-1], found[-1] * BAD) if isinstance(found, tuple) else found * BAD


def parts_of(loop: TrainingLoop) -> dict[str, tuple[Any, str, str]]:
    """Where a bad number can come up: the owner and name of what gives it, and what the diagnosis says."""
    parts = loop.parts
    terms: dict[str, Any] = {term.name: term.term for term in parts.engine.terms}
    reward = terms["reward/colourfulness"]
    return {
        "reward": (reward, "_call", "the reward 'colourfulness' returned a score that is not finite for 4 of 4"),
        "gradient": (reward, "_differentiate", "the gradient of the reward 'colourfulness' is not finite"),
        "decode": (reward.decode, "decode", "the decoder gave pixels that are not finite for 4 of 4"),
        "reference": (terms["integral_kl"], "reference_x0", "the reference's prediction is not finite"),
        "assistant": (terms["integral_kl"], "assistant_x0", "the assistant's prediction is not finite"),
        "generator": (parts.engine, "_run", "the generator's samples are not finite"),
    }


WHERE = ("reward", "gradient", "decode", "reference", "assistant", "generator")


def inject(loop: TrainingLoop, where: str, steps: range) -> str:
    owner, name, said = parts_of(loop)[where]
    during(loop, steps, spoil, name, owner)
    return said


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.mark.parametrize("where", WHERE)
def test_one_bad_step_is_skipped_counted_and_explained(loop: TrainingLoop, where: str) -> None:
    said = inject(loop, where, range(3, 4))
    before: list[Tensor] = []

    class Listener:
        def dipp_on_step(self, event: Any) -> None:
            weights = [parameter.detach().clone() for parameter in loop.parts.generator.network.parameters()]
            if event.step == 3:
                assert all(torch.equal(*pair) for pair in zip(weights, before, strict=True))
            elif before:
                assert not all(torch.equal(*pair) for pair in zip(weights, before, strict=True))
            before[:] = weights

    run_steps(loop, StopRequest(), Broadcast([Listener()]))
    assert loop.step == 8 and loop.parts.engine.guard is not None
    rows = rows_of(loop.folder.path, "metrics.jsonl")
    assert [row["step"] for row in rows if "skipped" in row] == [3]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    (skipped,) = rows_of(loop.folder.path, "skipped.jsonl")
    assert skipped["step"] == 3 and any(said in item for item in skipped["reasons"]), skipped
    assert all(torch.isfinite(parameter).all() for parameter in loop.parts.generator.network.parameters())
    assert all(torch.isfinite(parameter).all() for parameter in loop.parts.assistant.denoiser.network.parameters())


@pytest.mark.parametrize("where", WHERE)
def test_too_many_bad_steps_stop_the_run_with_a_diagnosis_and_a_good_checkpoint(loop: TrainingLoop, where: str) -> None:
    said = inject(loop, where, range(4, 100))
    with pytest.raises(RunError) as caught:
        go(loop)
    sentence = str(caught.value)
    assert "Bad numbers in 5 steps in a row, 4 to 8" in sentence and said in sentence, sentence
    assert f"Go on with: dipp train --resume --out {loop.folder.path}" in sentence
    state = load_checkpoint(checkpoints(loop.folder.checkpoints)[-1])
    assert all(torch.isfinite(item).all() for item in state["generator"].values())


@pytest.mark.parametrize("where", WHERE)
def test_bad_numbers_under_float16_are_told_and_not_taken_for_an_overflow(loop: TrainingLoop, where: str) -> None:
    """What was not finite before the backward pass began cannot be mended by a smaller loss scale."""
    engine, assistant = loop.parts.engine, loop.parts.assistant
    engine.scale, assistant.scale = LossScale(True), LossScale(True)
    said = inject(loop, where, range(4, 100))
    with pytest.raises(RunError) as caught:
        go(loop)
    assert "Bad numbers in 5 steps in a row, 4 to 8" in str(caught.value) and said in str(caught.value)
    assert engine.scale.factor == assistant.scale.factor == LossScale(True).factor


def test_a_gradient_that_overflows_under_float16_halves_the_scale(loop: TrainingLoop) -> None:
    engine = loop.parts.engine
    engine.scale = LossScale(True)
    parameter = next(item for item in loop.parts.generator.network.parameters() if item.requires_grad)
    handle = parameter.register_hook(lambda gradient: gradient / 0)
    loop.one_step()
    handle.remove()
    loop.one_step()
    assert engine.scale.factor == LossScale(True).factor / 2
    assert engine.guard is not None and engine.guard.skipped == 0


def test_an_exploding_gradient_is_not_followed(settings: dict[str, Any], tmp_path: Path) -> None:
    config = resolve(make_config({**settings, "out": tmp_path / "run", "steps": 14, "max_grad_norm": 1e9}))
    folder = RunFolder(tmp_path / "run")
    folder.create(config)
    loop = TrainingLoop(config, assemble(config), folder)
    (reward,) = (term.term for term in loop.parts.engine.terms if term.mixed)
    during(loop, range(12, 13), lambda found: found * 1e9, "_call", reward)
    go(loop)
    (skipped,) = rows_of(folder.path, "skipped.jsonl")
    assert skipped["step"] == 12 and "times the usual" in skipped["reasons"][0]


def test_a_run_says_in_its_summary_what_was_skipped(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "moody.py").write_text(
        "calls = []\n\n\ndef moody(images, prompts):\n    calls.append(1)\n"
        "    return images.mean((1, 2, 3)) * (float('nan') if len(calls) == 4 else 1)\n"
    )
    result = train(TrainConfig(**settings | {"rewards": {f"{tmp_path}/moody.py:moody": 1.0}, "out": tmp_path / "run"}))
    assert any(
        item.startswith("Bad numbers came up in 1 step, whose updates were skipped")
        for item in result.summary["warnings"]
    )
    assert "Bad numbers came up in 1 step" in (result.folder / "report.html").read_text()


def full(*given: Any, **named: Any) -> None:
    raise OSError(28, "No space left on device", "state.safetensors")


@pytest.mark.parametrize("broken", ["save_file", "fsync", "put_in_place"])
def test_a_full_disk_is_a_sentence_and_the_last_good_checkpoint_is_whole(
    loop: TrainingLoop, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    go_until(loop, 4)
    monkeypatch.setattr(f"dipp_toolkit.training.run_state.checkpoint.{broken}", full)
    with pytest.raises(
        RunError, match=r"stopped after step [5-8]: state.safetensors: No space left on device"
    ) as caught:
        go(loop)
    assert f"Go on with: dipp train --resume --out {loop.folder.path}" in str(caught.value)
    whole = checkpoints(loop.folder.checkpoints)
    assert [load_checkpoint(item)["step"] for item in whole][-1] == 4


def go_until(loop: TrainingLoop, step: int) -> None:
    """Step up to here and save, as a stopped run would."""
    while loop.step < step:
        loop.one_step()
    (loop.folder.metrics).write_text("".join(json.dumps({"step": k + 1}) + "\n" for k in range(step)))
    loop.save()


def test_a_real_full_disk(settings: dict[str, Any], tmp_path: Path, small_disk: Path) -> None:
    """Checkpoints fill a file system of some megabytes; what was whole before stays whole."""
    with pytest.raises(RunError) as caught:
        train(TrainConfig(**settings | {"out": small_disk / "run", "steps": 500, "checkpoint_every": 1,
                                        "keep_checkpoints": 500}))  # fmt: skip
    assert "No space left on device" in str(caught.value) and "\n" not in str(caught.value)
    whole = [load_checkpoint(checkpoint)["step"] for checkpoint in checkpoints(small_disk / "run" / "checkpoints")]
    assert whole == list(range(1, len(whole) + 1)) and whole


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight megabytes, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.system(f"mount -t tmpfs -o size=8m tmpfs {place} 2>/dev/null") != 0:
        pytest.skip("a file system of its own cannot be mounted here")
    try:
        yield place
    finally:
        os.system(f"umount -l {place}")


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *given: Any, **named: Any) -> None:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DippError, match="Read-only file system") as caught:
        train(TrainConfig(**settings | {"out": tmp_path / "run"}))
    assert isinstance(caught.value, RequestError | RunError) and "\n" not in str(caught.value)


def test_a_clock_that_jumps_changes_nothing(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(TrainConfig(**settings | {"out": tmp_path / "plain"}))
    jumps = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: 1e9 * (-1) ** next(jumps))
    jumped = train(TrainConfig(**settings | {"out": tmp_path / "jumped"}))
    for result in (plain, jumped):
        assert result.summary["seconds"] > 0
    first, second = (
        load_checkpoint(checkpoints(item.folder / "checkpoints")[-1])["generator"] for item in (plain, jumped)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
