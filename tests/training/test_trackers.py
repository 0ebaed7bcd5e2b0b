"""Trackers: what they are told, and where their files lie. Stand-ins, so that the packages need not be installed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dipp_toolkit.config import make_config
from dipp_toolkit.errors import PluginError, RunError
from dipp_toolkit.events import RunEndEvent, RunStartEvent, StepEvent
from dipp_toolkit.training.listeners import Trackers
from dipp_toolkit.training.run_state.run_folder import LEFT_BY_A_START

STAND_IN = """
import json, pathlib

class Run:
    def __init__(self, words):
        self.rows = [{"init": words}]

    def log(self, values, step=None, **more):
        self.rows.append({"step": step, **values})

    def finish(self):
        pathlib.Path(self.rows[0]["init"].get("dir", "."), "KIND.json").write_text(json.dumps(self.rows))

class Config(dict):
    def update(self, values, **more):
        run.rows.append({"config": dict(values)})

config = Config()

def init(**words):
    global run
    run = Run(words)
    run.config = config
    return run
"""


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules `wandb` and `trackio`; accelerate looks for them once, when it is imported."""
    from accelerate.utils import LoggerType

    packages = tmp_path / "packages"
    packages.mkdir()
    for name in ("wandb", "trackio"):
        (packages / f"{name}.py").write_text(STAND_IN.replace("KIND", name))
        sys.modules.pop(name, None)
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [LoggerType.WANDB, LoggerType.TRACKIO])
    yield
    for name in ("wandb", "trackio"):
        sys.modules.pop(name, None)


def test_trackers_get_every_step_under_the_name_of_the_run(
    stand_ins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/mine")
    folder.mkdir(parents=True)
    config = make_config({"generator": "emoji-onestep", "rewards": "emoji-clip=0.5", "device": "cpu", "seed": 7})
    trackers = Trackers(("wandb", "trackio"))
    trackers.dipp_on_run_start(RunStartEvent(config, folder, 0))
    for step in (1, 2):
        metrics = {"step": step, "reward/emoji-clip": 0.5 * step}
        trackers.dipp_on_step(StepEvent(step, 2, metrics))
    trackers.dipp_on_run_end(RunEndEvent(folder, {}))
    # wandb's files lie in the run folder, trackio's where trackio has all of its runs.
    wandb, trackio = (json.loads(path.read_text()) for path in (folder / "wandb.json", Path("trackio.json")))
    assert wandb[0] == {"init": {"project": "dipp", "name": "mine", "dir": "runs/mine"}}
    assert trackio[0] == {"init": {"project": "dipp", "name": "mine"}}
    for rows in (wandb, trackio):
        assert rows[2:] == [{"step": 1, "reward/emoji-clip": 0.5}, {"step": 2, "reward/emoji-clip": 1.0}]
        assert rows[1]["config"]["seed"] == 7 and json.loads(rows[1]["config"]["rewards"]) == {"emoji-clip": 0.5}


def test_a_tracker_that_cannot_begin_says_the_way_on(
    stand_ins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def refuse(**words: object) -> None:
        raise ValueError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", refuse)
    config = make_config({"generator": "emoji-onestep", "device": "cpu"})
    with pytest.raises(RunError, match=r"\(wandb\) could not start: No API key configured.*WANDB_MODE=offline"):
        Trackers(("wandb",)).dipp_on_run_start(RunStartEvent(config, tmp_path, 0))


def test_what_trackers_leave_is_no_other_run() -> None:
    assert {"dipp", "wandb"} <= set(LEFT_BY_A_START)


def test_a_tracker_that_is_not_installed_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dipp_toolkit.training.listeners.missing_of", list)
    with pytest.raises(PluginError, match=r"pip install 'dipp-toolkit\[trackio\]'"):
        Trackers(("trackio",))
