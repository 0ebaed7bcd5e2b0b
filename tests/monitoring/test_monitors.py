"""The monitors: closed-form snapshots, looks while training, early stops, resuming, the report."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from dipp_cli.terminal.progress import Bar, PlainLines, held_out
from dipp_toolkit import RequestError, RunError, TrainConfig
from dipp_toolkit.config import WARNINGS, make_config
from dipp_toolkit.evaluation.diversity import seed_diversity
from dipp_toolkit.events import MonitorEvent, StepEvent, Warned
from dipp_toolkit.monitoring import diversity_collapse, over_optimisation, over_saturation
from dipp_toolkit.monitoring.history import Bases, read_bases, write_bases
from dipp_toolkit.monitoring.monitors import find_warnings
from dipp_toolkit.monitoring.snapshot import Snapshot, take_snapshot
from dipp_toolkit.report import write_report
from dipp_toolkit.training.early_stop import in_a_row
from dipp_toolkit.training.monitor import random_states_kept
from dipp_toolkit.training.run import RunResult, train
from dipp_toolkit.training.run_state.checkpoint import checkpoint_step, checkpoints
from dipp_toolkit.utils.jsonl import read_step_rows
from fake_run import write_run
from tiny import tiny_pipeline

PROMPTS = 16


def snapshot(**rewards: float) -> Snapshot:
    """Prompts that differ by 1 standard deviation in every reward, all moved by the given amounts."""
    spread = torch.linspace(-1, 1, PROMPTS, dtype=torch.float64)
    spread = spread / spread.std()
    flat = torch.full((PROMPTS,), 0.3, dtype=torch.float64)
    return Snapshot({name: spread + by for name, by in rewards.items()}, flat / 3, flat, flat / 2, flat)


def names(*arguments: Any, **keywords: Any) -> list[str]:
    return [warning.name for warning in find_warnings(*arguments, **keywords)]


@pytest.mark.parametrize(
    ("trained", "judge", "found"),
    [(1.0, -0.2, True), (1.0, -0.05, False), (1.0, 0.5, False), (0.0, -0.5, False), (-1.0, -0.5, False)],
)
def test_over_optimisation_is_a_reward_that_rises_while_a_judge_falls(
    trained: float, judge: float, found: bool
) -> None:
    start, now = snapshot(r=0, j=0, other=0), snapshot(r=trained, j=judge, other=0.3)
    assert names(now, start, ["r"]) == ([over_optimisation.NAME] if found else [])
    assert names(now, start, ["r", "j"]) == [], "a reward that is trained on judges nothing"
    # The mirror image: a negative weight aims downwards.
    assert names(snapshot(r=-trained, j=judge, other=0.3), start, {"r": -1.0}) == names(now, start, {"r": 1.0})


def test_a_fall_that_may_be_chance_is_none() -> None:
    start, noise = snapshot(r=0, j=0), torch.randn(PROMPTS, generator=torch.Generator().manual_seed(0)).double()
    noise = (noise - noise.mean()) / noise.std()
    now = snapshot(r=1, j=0)
    uncertain = replace(now, rewards={**now.rewards, "j": start.rewards["j"] - 0.2 + noise})
    certain = replace(now, rewards={**now.rewards, "j": start.rewards["j"] - 0.2 + 0.2 * noise})
    assert names(uncertain, start, ["r"]) == [] and names(certain, start, ["r"]) == [over_optimisation.NAME]
    (warned,) = find_warnings(certain, start, ["r"])
    assert "r rose by 1 (1 to 1)" in warned.text and "j fell by 0.2" in warned.text and "reward_scale" in warned.text


@pytest.mark.parametrize(("share", "found"), [(0.79, True), (0.81, False), (1.5, False), (0.0, True)])
def test_diversity_collapse_is_a_ratio_below_its_threshold(share: float, found: bool) -> None:
    start = snapshot()
    assert start.diversity is not None
    now = replace(start, diversity=share * start.diversity)
    assert names(now, start, []) == ([diversity_collapse.NAME] if found else [])
    # The same ratio, but not of every prompt: the interval reaches over the threshold.
    half = torch.where(torch.arange(PROMPTS) % 2 == 0, share - 0.5, share + 0.5) * start.diversity
    assert names(replace(start, diversity=half), start, []) == ([diversity_collapse.NAME] if share == 0.0 else [])
    assert names(replace(now, diversity=None), start, []) == []


@pytest.mark.parametrize("quantity", over_saturation.MARGINS)
def test_over_saturation_is_above_the_start_and_the_reference(quantity: str) -> None:
    start, margin = snapshot(), over_saturation.MARGINS[quantity]
    above = replace(start, **{quantity: getattr(start, quantity) + margin + 0.01})
    below = replace(start, **{quantity: getattr(start, quantity) + margin - 0.01})
    assert names(above, start, []) == [over_saturation.NAME] and names(below, start, []) == []
    assert names(above, start, [], reference=start) == [over_saturation.NAME]
    assert names(above, start, [], reference=above) == [], "as colourful as the reference"
    assert names(above, above, [], reference=start) == [], "as colourful as the start"
    assert over_saturation.WORDS[quantity] in find_warnings(above, start, [])[0].text


def test_few_prompts_say_nothing() -> None:
    start, now = snapshot(r=0, j=0), snapshot(r=1, j=-1)

    def few(one: Snapshot, count: int) -> Snapshot:
        rewards = {name: values[:count] for name, values in one.rewards.items()}
        return Snapshot(rewards, None, one.saturation[:count], one.contrast[:count], one.clipped[:count])

    assert names(few(now, 8), few(start, 8), ["r"]) == [over_optimisation.NAME]
    assert names(few(now, 7), few(start, 7), ["r"]) == []


def test_a_snapshot_is_what_it_says(tmp_path: Path) -> None:
    images = torch.rand(5, 3, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    scores = torch.arange(15.0).reshape(5, 3)
    one = take_snapshot(images, {"r": scores})
    assert one.rewards["r"].tolist() == [1, 4, 7, 10, 13]
    assert one.diversity is not None and float(one.diversity.mean()) == pytest.approx(seed_diversity(images))
    assert take_snapshot(images[:, :1], {"r": scores[:, :1]}).diversity is None
    red = torch.zeros(2, 2, 3, 4, 4)
    red[:, :, 0] = 1
    plain = take_snapshot(red, {})
    assert (
        plain.saturation.tolist() == [1, 1] and plain.contrast.tolist() == [0, 0] and plain.clipped.tolist() == [1, 1]
    )

    write_bases(tmp_path / "bases", Bases(one, plain), "this run")
    read = read_bases(tmp_path / "bases", "this run")
    assert read is not None and torch.equal(read.start.rewards["r"], one.rewards["r"])
    assert torch.equal(read.start.diversity, one.diversity) and torch.equal(read.reference.clipped, plain.clipped)
    assert read_bases(tmp_path / "bases", "another run") is None and read_bases(tmp_path / "none", "this run") is None
    (tmp_path / "bases").write_bytes((tmp_path / "bases").read_bytes()[:-9])
    assert read_bases(tmp_path / "bases", "this run") is None


def test_looks_in_a_row_are_counted_from_the_newest() -> None:
    rows = [{"warnings": [{"name": name} for name in row]} for row in (["a"], [], ["a"], ["a", "b"])]
    assert [in_a_row(rows, name) for name in ("a", "b", "c")] == [2, 1, 0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stop_on": "over-optimization"}, r"Did you mean 'over-optimisation'\?"),
        ({"monitor_every": -1}, "monitor_every"),
        ({"monitor_patience": 0}, "monitor_patience"),
        ({"stop_on": [1]}, "stop_on"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        make_config(settings)


def test_stop_on_reads_as_people_write_it() -> None:
    assert make_config({"stop_on": "all"}).stop_on == WARNINGS
    assert make_config({"stop_on": "over-saturation, diversity-collapse"}).stop_on == (
        "over-saturation", "diversity-collapse",
    )  # fmt: skip
    assert make_config({"stop_on": None}).stop_on == () == make_config({"stop_on": ""}).stop_on


REWARDS = """
import random
import numpy, torch


def blueness(images, prompts):
    return images[:, 2].mean((1, 2)) - images[:, :2].mean((1, 2, 3))


def redness(images, prompts):
    random.random(); numpy.random.rand(); torch.rand(())
    return -blueness(images, prompts)


class Shaky:
    differentiable = False

    def __init__(self, file="", fails=""):
        self.fails = fails

    def __call__(self, images, prompts):
        import pathlib
        if self.fails and not pathlib.Path(self.fails).exists():
            Shaky.calls = getattr(Shaky, "calls", 0) + 1
            if Shaky.calls > 12:
                raise ValueError("the machine is gone")
        return images.mean((1, 2, 3))
"""
TEXTS = [f"a {colour} {thing}" for colour in ("red", "green", "blue") for thing in ("cat", "dog", "tree")]
Run = Callable[..., RunResult]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("world")
    (folder / "mine.py").write_text(REWARDS)
    (folder / "prompts.txt").write_text("\n".join(TEXTS))
    return {
        "reference": str(tiny_pipeline(folder / "reference")),
        "prompts": str(folder / "prompts.txt"),
        "rewards": {f"{folder}/mine.py:blueness": 1.0},
        "judge": f"{folder}/mine.py:redness",
        "batch_size": 4,
        "eval_count": 9,
        "reference_steps": 2,
        "learning_rate": 1e-2,
        "ema": 0.0,
        "reward_scale": 100.0,
        "checkpoint_every": 4,
        "sample_every": 50,
        "device": "cpu",
        "steps": 12,
    }


@pytest.fixture
def run(world: dict[str, Any], tmp_path: Path) -> Run:
    def start(name: str, listeners: Sequence[object] = (), **settings: Any) -> RunResult:
        return train(TrainConfig(**(world | {"out": tmp_path / name} | settings)), listeners=listeners)

    return start


def looks(folder: Path) -> list[dict[str, Any]]:
    return read_step_rows(folder / "monitors.jsonl")


def state(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step-{step:08d}" / "state.safetensors")


def random_states() -> tuple[Any, ...]:
    # Python's own is moved by the type checker of these tests; it has a test of its own.
    return np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


class Listener:
    """Keeps the looks and the random states around them, and ends the run like a kill after a step."""

    def __init__(self, die: int | None = None):
        self.die, self.events = die, list[MonitorEvent]()
        self.states, self.kept = random_states(), list[bool]()

    def dipp_on_step(self, event: StepEvent) -> None:
        if event.step == self.die:
            raise KeyboardInterrupt
        self.states = random_states()

    def dipp_on_monitor(self, event: MonitorEvent) -> None:
        self.events.append(event)
        if event.step:
            self.kept.append(self.states == random_states())


def test_random_states_are_kept_whatever_happens() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    for item in (random.seed, np.random.seed, torch.manual_seed):
        item(3)
    drawn = draw()
    for item in (random.seed, np.random.seed, torch.manual_seed):
        item(3)
    with pytest.raises(ZeroDivisionError), random_states_kept(torch.device("cpu")):
        draw()
        raise ZeroDivisionError
    assert draw() == drawn


def test_looking_changes_no_bit_of_the_training(run: Run) -> None:
    plain, listener = run("plain", steps=8), Listener()
    watched = run("watched", steps=8, monitor_every=2, listeners=[listener])
    assert listener.kept == [True] * 4
    a, b = state(plain.folder, 8), state(watched.folder, 8)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert (plain.folder / "before_after.png").read_bytes() == (watched.folder / "before_after.png").read_bytes()
    assert (
        [look["step"] for look in looks(watched.folder)] == [0, 2, 4, 6, 8] == [event.step for event in listener.events]
    )
    first, last = looks(watched.folder)[0], looks(watched.folder)[-1]
    assert all(item["change"] == {"mean": 0, "low": 0, "high": 0} for item in first["rewards"].values())
    assert first["diversity"]["share"] == 1 and first["warnings"] == []
    changes = {name.rpartition(":")[2]: value["change"]["mean"] for name, value in last["rewards"].items()}
    assert changes["blueness"] == pytest.approx(-changes["redness"]) and changes["blueness"] > 0
    assert not (plain.folder / "monitors.jsonl").exists()


def test_a_cheat_is_stopped_and_said_everywhere(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    result = run("run", steps=40, monitor_every=2, stop_on="all", listeners=[PlainLines()])
    stopped = result.summary["stopped_early"]
    assert "over-optimisation" in stopped["warnings"] and stopped["step"] == result.summary["steps"] < 40
    rows = looks(result.folder)
    assert rows[-1]["step"] == stopped["step"]
    assert [bool(row["warnings"]) for row in rows[-3:]] == [False, True, True], "patience is two looks"
    assert stopped["last_without"] == rows[-3]["step"]
    assert (result.folder / "checkpoints" / f"step-{stopped['step']:08d}").is_dir()
    assert "over-optimisation" in result.summary["warned"]
    err = capsys.readouterr().err
    assert "warning: over-optimisation" in err and "stopped early" in err
    page = (result.folder / "report.html").read_text()
    assert "Held-out prompts while training" in page and f"Stopped early at step {stopped['step']} of 40" in page
    assert f"<b>Step {stopped['step']}.</b>" in page and "which nothing was trained on" in page
    # It stays stopped, unless it is asked to go on.
    again = run("run", steps=40, monitor_every=2, stop_on="all", resume=True)
    assert again.summary["stopped_early"] == stopped and looks(again.folder) == rows
    on = run("run", steps=stopped["step"] + 2, monitor_every=2, stop_on="", resume=True)
    assert "stopped_early" not in on.summary and looks(on.folder)[: len(rows)] == rows


@pytest.mark.slow
def test_the_last_checkpoint_without_a_warning_can_be_had(run: Run) -> None:
    settings = {"monitor_every": 2, "checkpoint_every": 2, "keep_checkpoints": 20, "learning_rate": 1.2e-5}
    stopped = run("run", steps=40, stop_on="all", **settings).summary["stopped_early"]
    clean = stopped["last_without"]
    assert clean > 0 and f"the checkpoint step-{clean:08d} is the nearest" in stopped["text"]
    folder = run("whole", steps=clean, **settings).folder.parent / "run"
    for checkpoint in checkpoints(folder / "checkpoints"):
        if (checkpoint_step(checkpoint) or 0) > clean:
            shutil.rmtree(checkpoint)
    early = run("run", steps=clean, stop_on="", resume=True, **settings)
    assert "stopped_early" not in early.summary and early.summary["steps"] == clean
    assert looks(folder) == looks(folder.parent / "whole")
    assert (folder / "before_after.png").read_bytes() == (folder.parent / "whole/before_after.png").read_bytes()


def test_more_steps_between_looks_than_there_are_cost_nothing(run: Run) -> None:
    folder = run("run", steps=2, monitor_every=3).folder
    assert not (folder / "monitors.jsonl").exists() and not (folder / "monitors.safetensors").exists()


def test_a_killed_run_stops_at_the_same_step(run: Run) -> None:
    settings = {"steps": 40, "monitor_every": 2, "stop_on": "over-optimisation", "monitor_patience": 4}
    whole = run("whole", **settings)
    step = whole.summary["stopped_early"]["step"]
    assert step > 5
    with pytest.raises(KeyboardInterrupt):
        run("parts", listeners=[Listener(die=step - 1)], **settings)
    (whole.folder.parent / "parts" / "monitors.safetensors").unlink()  # it can be made again
    with pytest.raises(KeyboardInterrupt):
        run("early", listeners=[Listener(die=2)], **settings)
    for name in ("parts", "early"):
        parts = run(name, resume=True, **settings)
        assert (parts.folder / "monitors.jsonl").read_bytes() == (whole.folder / "monitors.jsonl").read_bytes()
        assert parts.summary["stopped_early"]["step"] == step
        a, b = state(whole.folder, step), state(parts.folder, step)
        assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
def test_a_run_that_was_not_monitored_is_from_now_on(run: Run) -> None:
    run("run", steps=4)
    longer = run("run", steps=8, monitor_every=4, resume=True)
    assert [row["step"] for row in looks(longer.folder)] == [0, 4, 8]
    assert looks(longer.folder) == looks(run("whole", steps=8, monitor_every=4).folder)


def test_a_watcher_that_fails_loses_nothing(run: Run, world: dict[str, Any], tmp_path: Path) -> None:
    shaky = world["judge"].replace("redness", "Shaky")
    settings = {
        "steps": 6, "monitor_every": 3, "checkpoint_every": 100, "monitor_rewards": (shaky,),
        "reward_options": {shaky: {"fails": str(tmp_path / "well")}},
    }  # fmt: skip
    whole = run("whole", **{**settings, "reward_options": {}})
    with pytest.raises(RunError, match=r"(?s)machine is gone.*after step 3 of 6; everything is saved.*--resume"):
        run("parts", **{**settings})
    assert [row["step"] for row in looks(tmp_path / "parts")] == [0]
    (tmp_path / "well").touch()
    parts = run("parts", resume=True, **settings)
    assert looks(parts.folder) == looks(whole.folder)
    assert shaky in parts.summary["rewards"] and parts.summary["rewards"] == whole.summary["rewards"]


def test_what_does_not_fit_together_is_refused_before_anything_is_written(
    run: Run, world: dict[str, Any], tmp_path: Path
) -> None:
    for settings, said in (
        ({"stop_on": "all", "monitor_every": 0}, "monitor_every=50"),
        ({"monitor_every": 2, "monitor_rewards": tuple(world["rewards"])}, "trained on and watched anyway"),
        ({"monitor_every": 2, "monitor_rewards": ("emoji-judg",)}, "emoji-judge"),
    ):
        with pytest.raises(RequestError, match=said):
            run("refused", **settings)
        assert not (tmp_path / "refused").exists()
    with pytest.raises(RequestError, match="at least 8 held-out prompts"):
        run("few", monitor_every=2, stop_on="all", eval_count=4)


def test_a_report_with_looks_and_one_without(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    assert "Held-out prompts" not in write_report(folder).read_text()
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6}
    rows = [
        {
            "step": step,
            "rewards": {
                name: {**interval, "change": interval, "deviations": step / 10}
                for name in ("emoji-preference", "emoji-judge")
            },
            "diversity": {**interval, "share": 0.9},
            **dict.fromkeys(("saturation", "contrast", "clipped"), interval),
            "warnings": [{"name": "over-saturation", "text": "Too <loud>."}] if step else [],
        }
        for step in (0, 20, 40)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "monitors.jsonl").write_text(text + '{"step": 60, "rew')
    page = write_report(folder).read_text()
    assert "looked at 3 times" in page and "<b>Step 20.</b> Too &lt;loud&gt;." in page
    assert "Rewards and judges" in page and "emoji-judge (judge)" in page and "Diversity" in page
    console = Console(file=StringIO(), force_terminal=True, width=300)
    with Bar(console) as bar:
        bar.dipp_on_monitor(MonitorEvent(20, 40, rows[1], (Warned(name="over-saturation", text="Loud."),), "Stopped."))
    assert console.file.getvalue().count("warning: over-saturation") >= 1  # type: ignore[attr-defined]
    line = held_out(MonitorEvent(20, 40, rows[1], ()))
    assert "emoji-judge 0.500 (+0.500)" in line and "diversity 0.90 of the start" in line
