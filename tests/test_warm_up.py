"""The assistant's updates before the first step: shown, stopped, saved, gone on with to the bit."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dipp_toolkit import TrainConfig, train
from dipp_toolkit.assistant import LearnedAssistant
from dipp_toolkit.errors import Interrupted, RunError
from dipp_toolkit.events import CheckpointEvent, RunStartEvent, StepEvent, WarmUpEvent
from dipp_toolkit.preflight import preflight
from dipp_toolkit.training import MEASURED
from tiny import PROMPTS, tiny_pipeline

Run = Callable[..., Path]
WARM_UP = 5


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("world")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    twin = str(tiny_pipeline(folder / "reference"))
    return {
        "generator": twin, "reference": twin, "prompts": str(folder / "prompts.txt"), "batch_size": 3, "eval_count": 2,
        "reference_steps": 1, "guidance": 2.0, "assistant_warmup": WARM_UP, "steps": 2, "checkpoint_every": 2,
        "diagnose_every": 1, "device": "cpu", "learning_rate": 1e-3, "assistant_learning_rate": 1e-3,
    }  # fmt: skip


@pytest.fixture
def run(world: dict[str, Any], tmp_path: Path) -> Run:
    def start(name: str, listeners: Any = (), **changes: Any) -> Path:
        folder = tmp_path / name
        train(TrainConfig(**{**world, "out": folder, **changes}), listeners=listeners)
        return folder

    return start


class Listens:
    """Writes down what it hears, and asks the run to stop after some update of the warm-up."""

    def __init__(self, stop: int = 0) -> None:
        self.stop, self.heard = stop, []

    def dipp_on_run_start(self, event: RunStartEvent) -> None:
        self.heard.append("start")

    def dipp_on_warm_up(self, event: WarmUpEvent) -> None:
        assert event.updates == WARM_UP and math.isfinite(event.loss)
        self.heard.append(f"warm {event.update}")
        if event.update == self.stop:
            os.kill(os.getpid(), signal.SIGTERM)

    def dipp_on_checkpoint(self, event: CheckpointEvent) -> None:
        if self.stop:
            self.heard.append(f"saved {event.step}")

    def dipp_on_step(self, event: StepEvent) -> None:
        self.heard.append(f"step {event.step}")


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in rows]


@pytest.mark.parametrize("stop", [1, 4])
def test_a_stop_in_the_warm_up_loses_nothing(run: Run, stop: int) -> None:
    """Stopped between and after checkpoints of the warm-up; the rest, diagnoses and weights are the same bits."""
    straight = Listens()
    whole = run("whole", [straight])
    assert straight.heard == ["start", *(f"warm {k}" for k in range(1, WARM_UP + 1)), "step 1", "step 2"]
    first = Listens(stop)
    with pytest.raises(Interrupted, match=f"in the assistant's warm-up, after {stop} of {WARM_UP} updates; everything"):
        run("cut", [first])
    assert [one for one in first.heard if not one.startswith("saved")] == straight.heard[: stop + 1]
    assert first.heard[-1] == "saved 0"
    rest = Listens()
    cut = run("cut", [rest], resume=True)
    assert rest.heard == ["start", *straight.heard[stop + 1 :]]
    for name in ("metrics.jsonl", "diagnostics.jsonl"):
        assert lines(whole, name) == lines(cut, name)
    weights = (load_file(next((one / "final" / "transformer").glob("*.safetensors"))) for one in (whole, cut))
    ours, theirs = weights
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_dry_run_knows_that_a_run_goes_on_in_its_warm_up(run: Run, world: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run("cut", [Listens(3)])
    seen = preflight(TrainConfig(**{**world, "out": tmp_path / "cut", "resume": True}))
    assert "goes on in the assistant's warm-up" in seen.rows["folder"]


def test_a_warm_up_of_bad_numbers_ends_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LearnedAssistant, "gradient_norm", lambda self: torch.tensor(math.nan))
    with pytest.raises(
        RunError, match="3 updates of the assistant's warm-up in a row, 1 to 3: the assistant's gradient"
    ):
        run("bad", bad_steps=3)
