"""The assistant's updates before the first step: how many, shown, stopped, saved, gone on with to the bit."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file

from dipp_cli.actions.plan import describe
from dipp_cli.terminal.progress import Bar, PlainLines
from dipp_toolkit import TrainConfig
from dipp_toolkit.config import make_config
from dipp_toolkit.diffusion.times import LogitNormalTimes, UniformTimes
from dipp_toolkit.errors import Interrupted, RequestError, RunError
from dipp_toolkit.events import CheckpointEvent, RunStartEvent, StepEvent, WarmUpEvent
from dipp_toolkit.planning.estimate import make_plan
from dipp_toolkit.training import assistant as assistant_module
from dipp_toolkit.training.assistant import LearnedAssistant
from dipp_toolkit.training.run import MEASURED
from dipp_toolkit.training.setup import assistant_start
from dipp_toolkit.training.setup.assistant_start import assistant_times
from dipp_toolkit.training.setup.preflight import preflight
from dipp_toolkit.training.setup.resolve import resolve
from tiny import PROMPTS, tiny_pipeline
from tiny_runs import Run, runs_in

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
    return runs_in(tmp_path, world)


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


@pytest.mark.first_case
@pytest.mark.parametrize("stop", [1, 4])
def test_a_stop_in_the_warm_up_loses_nothing(run: Run, stop: int) -> None:
    """Stopped between and after checkpoints of the warm-up; the rest, diagnoses and weights are the same bits."""
    straight = Listens()
    whole = run("whole", [straight])
    assert straight.heard == ["start", *(f"warm {k}" for k in range(1, WARM_UP + 1)), "step 1", "step 2"]
    first = Listens(stop)
    with pytest.raises(Interrupted, match=f"in the assistant's warm-up, after {stop} of {WARM_UP} updates; everything"):
        run("cut", [first])
    assert [item for item in first.heard if not item.startswith("saved")] == straight.heard[: stop + 1]
    assert first.heard[-1] == "saved 0"
    rest = Listens()
    cut = run("cut", [rest], resume=True)
    assert rest.heard == ["start", *straight.heard[stop + 1 :]]
    for name in ("metrics.jsonl", "diagnostics.jsonl"):
        assert lines(whole, name) == lines(cut, name)
    weights = (load_file(next((item / "final" / "transformer").glob("*.safetensors"))) for item in (whole, cut))
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


def warm_ups(**settings: Any) -> tuple[int, int]:
    """Updates before the first step, and before each."""
    resolved = resolve(make_config({"prompts": "emoji-train", **settings}))
    return resolved.assistant_warmup, resolved.assistant_rounds


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"generator": "sdxl-dmd2", "steps": 2000}, (500, 5)),
        ({"generator": "dipp-sdxl", "steps": 2000}, (500, 5)),
        ({"generator": "sdxl-dmd2"}, (300, 5)),
        ({"generator": "sdxl-dmd2", "steps": 3}, (3, 5)),
        ({"generator": "sd-turbo", "steps": 2000}, (500, 1)),
        ({"generator": "pixart-onestep", "steps": 2000}, (500, 1)),
        ({"reference": "pixart-alpha", "steps": 2000}, (500, 1)),
        ({"generator": "sdxl-dmd2", "assistant_warmup": 0, "assistant_rounds": 2}, (0, 2)),
        ({"generator": "emoji-onestep"}, (0, 1)),
        ({"reference": "emoji-reference"}, (0, 1)),
    ],
)
def test_published_names_have_a_warm_up(settings: dict[str, Any], expected: tuple[int, int]) -> None:
    assert warm_ups(**settings) == expected


def test_folders_have_a_warm_up_by_size_and_by_what_is_beside_them(
    world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = world["generator"]
    assert assistant_start.usual_warm_up(twin, twin, 900) == 0, "a small one"
    assert assistant_start.usual_warm_up("./mine.py:Generator", twin, 900) == 0, "somebody's own"
    assert assistant_start.usual_warm_up("somebody/model", twin, 900) == 500, "one of the hub"
    monkeypatch.setattr("dipp_toolkit.monitoring.interval.SMALL", 0)
    assert assistant_start.usual_warm_up(twin, twin, 900) == 500
    assert assistant_start.usual_warm_up(f"diffusers:{twin}", twin, 900) == 500
    assert assistant_start.usual_warm_up(None, twin, 40) == 40
    run = tmp_path / "run"
    shutil.copytree(twin, run / "final")
    assert assistant_start.usual_warm_up(str(run), twin, 900) == 500
    (run / "final" / "assistant").mkdir()
    assert assistant_start.usual_warm_up(str(run), twin, 900) == 0, "its assistant is saved with it"
    assert assistant_start.usual_warm_up(str(run / "final"), twin, 900) == 0


def test_a_run_that_was_begun_before_there_was_a_warm_up_goes_on_without(tmp_path: Path) -> None:
    """Whatever is recommended today: as it was settled when the run began."""
    settings = {"generator": "sdxl-dmd2", "prompts": "emoji-train", "steps": 900, "out": tmp_path}
    old = resolve(make_config(settings)).model_copy(update={"assistant_warmup": 0, "assistant_rounds": 1})
    (tmp_path / "config.yaml").write_text(old.to_yaml())
    again = resolve(make_config({**settings, "resume": True}))
    assert (again.assistant_warmup, again.assistant_rounds, again.guidance) == (0, 1, 7.5)
    named = resolve(make_config({**settings, "resume": True, "assistant_rounds": 2}))
    assert named.assistant_rounds == 2


@pytest.mark.parametrize(
    ("settings", "says", "notes"),
    [
        ({"assistant_warmup": 0}, "The assistant starts as the reference, so the divergence sees no difference", 1),
        ({"assistant_warmup": 0, "assistant_rounds": 0}, "The assistant is the reference and learns nothing", 1),
        ({"assistant_warmup": 1}, "starts as the reference; 1 updates before the first step", 0),
        ({"assistant_warmup": 0, "term": "reward_only", "rewards": {"colourfulness": 1.0}}, "", 0),
    ],
)
def test_a_run_says_where_its_assistant_starts(
    run: Run, capsys: pytest.CaptureFixture[str], settings: dict[str, Any], says: str, notes: int
) -> None:
    folder = run("run", [PlainLines()], steps=1, diagnose_every=0, **settings)
    printed = capsys.readouterr().err
    assert printed.count("--set assistant_warmup=500, for example, trains it before the first step.") == notes
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["environment"].get("assistant", "").startswith(says)
    assert bool(says) == ("assistant" in summary["environment"])
    assert says in (folder / "report.html").read_text()


def test_a_plan_counts_the_warm_up(capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"generator": "emoji-onestep", "batch_size": 2, "accumulation": 2, "assistant_warmup": 50}
    plan = make_plan(resolve(make_config(settings | {"assistant_rounds": 5})))
    assert plan.warm_up.keys() == plan.seconds.keys()
    for gpu, seconds in plan.warm_up.items():
        assert seconds == pytest.approx(10 * plan.pieces[gpu]["assistant update"], rel=1e-6)
    describe(plan.as_dict())
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("warm-up,", "50", f"{plan.warm_up['H100']:.0f}"))


def test_progress_shows_the_warm_up(capsys: pytest.CaptureFixture[str]) -> None:
    lines = PlainLines()
    lines.dipp_on_run_start(RunStartEvent(TrainConfig(steps=3), Path("runs/x"), 0))
    for update in range(1, 401):
        lines.dipp_on_warm_up(WarmUpEvent(update, 400, 0.5, ("it is not finite",) if update == 7 else ()))
    printed = capsys.readouterr().err.splitlines()[1:]
    assert printed[0] == "warm-up step 7 skipped: it is not finite"
    assert printed[1:] == [f"assistant warm-up {40 * k}/400  loss 0.5" for k in range(1, 11)]


def test_the_bar_counts_the_warm_up_and_then_the_steps() -> None:
    bar = Bar(Console(file=io.StringIO(), force_terminal=True))
    with bar:
        bar.dipp_on_run_start(RunStartEvent(TrainConfig(steps=3), Path("runs/x"), 0))
        bar.dipp_on_warm_up(WarmUpEvent(1, 2, 0.5))
        (task,) = bar._progress.tasks
        assert (task.description, task.completed, task.total) == ("assistant warm-up", 1, 2)
        bar.dipp_on_warm_up(WarmUpEvent(2, 2, 0.5))
        (task,) = bar._progress.tasks
        assert (task.description, task.completed, task.total) == ("training", 0, 3)
        bar.dipp_on_step(StepEvent(1, 3, {}))
        assert bar._progress.tasks[0].completed == 1


def test_the_assistant_has_a_time_law_of_its_own() -> None:
    """Uniform over the divergence's range where nothing is said, whatever the divergence's own law."""
    config = make_config({"time_sampling": "logit-normal", "time_range": "0.1,0.9"})
    assert assistant_times(config) == UniformTimes(0.1, 0.9)
    own = make_config({"assistant_time_sampling": "logit-normal", "assistant_time_range": "0,1"})
    assert assistant_times(own) == LogitNormalTimes(0, 1)
    assert make_config(yaml.safe_load(own.to_yaml())) == own
    assert make_config(yaml.safe_load(config.to_yaml())).assistant_time_range is None


def test_a_run_trains_its_assistant_at_its_own_times(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[torch.Tensor] = []
    loss = assistant_module.denoising_loss

    def seen(denoiser: Any, schedule: Any, x0: Any, condition: Any, sampling: Any, random: torch.Generator) -> Any:
        drawn.append(sampling(x0, torch.Generator().manual_seed(1)).t)
        return loss(denoiser, schedule, x0, condition, sampling, random)

    monkeypatch.setattr(assistant_module, "denoising_loss", seen)
    run("own", steps=1, time_range=(0.5, 0.6), assistant_time_range=(0.5, 0.9), diagnose_every=0)
    times = torch.cat(drawn)
    assert len(times) == 3 * (WARM_UP + 1) and times.min() >= 0.5 and 0.76 < times.max() < 0.9


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"assistant_time_sampling": "logit_normal"}, "Did you mean 'logit-normal'"),
        ({"assistant_time_range": "0.9,0.1"}, "expected two times with 0 <= low < high <= 1"),
        (
            {"assistant_time_range": "0.1,0.5"},
            "leaves out times between 0.02 and 0.98, at which the divergence is evaluated",
        ),
        ({"assistant_time_range": "0.02,0.9", "time_range": "0.1,0.95"}, "--set assistant_time_range=0.02,0.95"),
    ],
)
def test_times_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        resolve(make_config({"generator": "emoji-onestep", **settings}))
