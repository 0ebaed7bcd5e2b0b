"""Checkpoints that a device copies while it computes: the bytes of those that were copied at once, without a wait."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dipp_toolkit.config import TrainConfig, make_config
from dipp_toolkit.training import loop as loops
from dipp_toolkit.training.loop import TrainingLoop
from dipp_toolkit.training.run import train
from dipp_toolkit.training.run_state import host_copies
from dipp_toolkit.training.run_state.checkpoint import (
    SKELETON,
    TENSORS,
    Snapshot,
    checkpoints,
    load_checkpoint,
    prepare,
    save_checkpoint,
)
from dipp_toolkit.training.run_state.host_copies import CudaStream, HostCopies, StreamCopies
from dipp_toolkit.training.run_state.run_folder import RunFolder
from dipp_toolkit.training.setup.assembly import assemble
from dipp_toolkit.training.setup.resolve import resolve
from dipp_toolkit.utils.host_waits import HostWaits
from dipp_toolkit.utils.stand_in_device import stand_in_device
from tiny_runs import tiny_world

PATIENCE = 60.0


class LateStream:
    """Copies as late as a GPU may: not before something asks for it that changes the state."""

    def __init__(self) -> None:
        self.queue: list[tuple[Tensor, Tensor]] = []
        self.copied = threading.Event()
        self.most = 0

    def begin(self) -> None:
        assert not self.queue
        self.copied.clear()

    def copy(self, target: Tensor, source: Tensor) -> None:
        self.queue.append((target, source))

    def end(self) -> None:
        self.most = max(self.most, len(self.queue))

    def before_change(self) -> None:
        with torch.no_grad():
            for target, source in self.queue:
                target.copy_(source, non_blocking=True)
        self.queue = []
        self.copied.set()

    def wait(self) -> None:
        assert self.copied.wait(PATIENCE), "nothing asked for the copies"


class LateCopies(StreamCopies):
    """Late copies of the CPU's own tensors as well."""

    def __init__(self) -> None:
        super().__init__(LateStream(), pin=False)

    def __call__(self, tensor: Tensor) -> Tensor:
        return self._queued(tensor)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("copies")
    return {
        **tiny_world(folder), "batch_size": 2, "steps": 6,
        "eval_count": 2, "monitor_count": 2, "reference_steps": 1, "rewards": {"colourfulness": 1.0}, "seed": 3,
        "checkpoint_every": 2, "sample_every": 3, "monitor_every": 3, "diagnose_every": 3, "keep_checkpoints": 9,
        "assistant_warmup": 2, "deterministic": True,
    }  # fmt: skip


def tensors_that_differ(one: Path, other: Path) -> list[str]:
    """Names of two checkpoints' tensors."""
    ours, theirs = load_file(one / TENSORS), load_file(other / TENSORS)
    assert ours.keys() == theirs.keys()
    return sorted(name for name in ours if not torch.equal(ours[name], theirs[name]))


def content_of(checkpoint: Path) -> tuple[bytes, dict[str, Any]]:
    """A checkpoint's tensors as they lie in the file, and the values around them but for the time."""
    document = json.loads((checkpoint / SKELETON).read_text())
    return (checkpoint / TENSORS).read_bytes(), document["state"] | {"seconds": 0.0}


CASES: dict[str, dict[str, Any]] = {
    "reused samples": {"reuse_samples": True, "kl_budget": 0.01},
    "adapters, two updates of the assistant": {"mode": "lora", "lora_rank": 2, "assistant_rounds": 2},
    "no assistant's update": {"assistant_rounds": 0, "assistant_warmup": 0, "mode": "full"},
}


@pytest.mark.first_case
@pytest.mark.parametrize("case", CASES)
def test_nothing_changes_before_it_is_copied(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    more = settings | CASES[case]
    train(TrainConfig(**more, out=tmp_path / "plain"))
    made: list[LateCopies] = []

    def late(device: torch.device) -> LateCopies:
        made.append(LateCopies())
        return made[-1]

    monkeypatch.setattr(loops, "host_copies", late)
    train(TrainConfig(**more, out=tmp_path / "late"))
    assert any(copies.stream.most > 20 for copies in made)  # type: ignore[attr-defined]
    ours, theirs = (checkpoints(tmp_path / name / "checkpoints") for name in ("late", "plain"))
    assert [path.name for path in ours] == [path.name for path in theirs] and len(ours) >= 3
    for one, other in zip(ours, theirs, strict=True):
        assert tensors_that_differ(one, other) == []
        assert content_of(one)[1] == content_of(other)[1]


def test_a_step_with_a_checkpoint_waits_no_more_than_one_without(settings: dict[str, Any], tmp_path: Path) -> None:
    with stand_in_device() as device:
        config = resolve(make_config({**settings, "precision": "fp32", "device": str(device), "out": tmp_path / "run"}))
        loop = TrainingLoop(config, assemble(config), RunFolder(tmp_path / "run"))
        loop.writer.copies = StreamCopies(LateStream(), pin=False)
        loop.warm_once()
        loop.one_step()
        waits: list[dict[str, int]] = []
        for saved in (False, True):
            with HostWaits() as counted:
                if saved:
                    loop.save_meanwhile(step_follows=True)
                loop.one_step()
            waits.append(counted.by_kind)
        assert waits[0] == waits[1] == {"to host": 2}
        (whole,) = loop.writer.wait()
        loop.writer.close()
    assert load_checkpoint(whole)["step"] == 2


STATE: dict[str, Any] = {
    "wide": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last), "turned": torch.randn(3, 5).T,
    "number": torch.tensor(3.5), "empty": torch.zeros(0, 4), "half": torch.randn(7).bfloat16(),
    "bytes": torch.arange(5, dtype=torch.uint8), "step": 4,
}  # fmt: skip


def test_the_bytes_are_those_of_a_plain_checkpoint_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_copies, "CHUNK", 256)
    save_checkpoint(tmp_path / "plain", STATE)
    copies = LateCopies()
    for name in ("first", "second"):
        snapshot = Snapshot.of(STATE, copies=copies)
        copies.before_change()
        prepare(tmp_path / name)
        snapshot.write(tmp_path / name)
        assert content_of(tmp_path / name) == content_of(tmp_path / "plain")
        assert not copies.sources
    assert 1 < len(copies.chunks) < len(STATE)  # small ones lie together, and the second took no more memory


def test_memory_that_cannot_be_pinned_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch.empty

    def refusing(*sizes: Any, pin_memory: bool = False, **named: Any) -> Tensor:
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory")
        return plain(*sizes, **named)

    monkeypatch.setattr(torch, "empty", refusing)
    stream = LateStream()
    copies = StreamCopies(stream)
    copies.begin()
    copy = copies._queued(torch.arange(4.0))
    stream.before_change()
    assert copy.tolist() == [0, 1, 2, 3] and not copies.pin


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_copies_what_was_there_before_the_change() -> None:
    device = torch.device("cuda")
    weights = torch.randn(2**22, device=device)
    before = HostCopies()(weights)
    copies = StreamCopies(CudaStream(device))
    for _ in range(3):
        copies.begin()
        copy = copies(weights)
        copies.end()
        copies.before_change()
        weights.add_(1)
        copies.wait()
        assert copy.is_pinned() and torch.equal(copy, before)
        before = before + 1
