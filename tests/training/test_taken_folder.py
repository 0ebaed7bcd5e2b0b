"""The folder that a run takes: a name of its own, nobody else in it, nothing left of a start that came to nothing."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dipp_cli.actions.settings import gather
from dipp_cli.app import main
from dipp_toolkit import RequestError, TrainConfig
from dipp_toolkit.config import make_config
from dipp_toolkit.distributed import Processes
from dipp_toolkit.errors import CheckpointError, Interrupted, RunError
from dipp_toolkit.events import StepEvent
from dipp_toolkit.experiments.ablation.cells import folders_of, train_cells
from dipp_toolkit.experiments.ablation.grid import make_cell
from dipp_toolkit.training.run import RunResult, train
from dipp_toolkit.training.run_state.reserved_folder import own_folder, taken_folder
from dipp_toolkit.training.run_state.run_folder import MAY_CHANGE, RunFolder, is_unbegun
from dipp_toolkit.utils.assignments import read_yaml
from tiny_runs import tiny_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a quick run on a tiny pipeline."""
    folder = tmp_path_factory.mktemp("world")
    return {
        **tiny_world(folder), "batch_size": 2, "steps": 3,
        "eval_count": 2, "reference_steps": 1, "sample_every": 100, "device": "cpu",
    }  # fmt: skip


Run = Callable[..., RunResult]


@pytest.fixture
def run(world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def start(listeners: tuple[object, ...] = (), **settings: Any) -> RunResult:
        return train(TrainConfig(**(world | settings)), listeners=listeners)

    return start


class AtStep:
    """Does something during a step."""

    def __init__(self, step: int, work: Callable[[], object]):
        self.step, self.work, self.seen = step, work, 0

    def dipp_on_step(self, event: StepEvent) -> None:
        self.seen = event.step
        if event.step == self.step:
            self.work()


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Names.


def test_two_runs_at_once_get_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = make_config({"generator": "mine"})
    with taken_folder(config) as (first, _), taken_folder(config) as (second, _):
        assert [item.path for item in (first, second)] == [Path("runs/mine-1"), Path("runs/mine-2")]
    assert below(tmp_path) == [], "nothing came of them"


def test_a_name_that_another_run_takes_at_the_last_moment_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = Path.mkdir

    def quicker(self: Path, *given: Any, **named: Any) -> None:
        if self.name == "mine-1":
            whole(self)
        whole(self, *given, **named)

    monkeypatch.setattr(Path, "mkdir", quicker)
    with taken_folder(make_config({"generator": "mine"})) as (folder, _):
        assert folder.path == Path("runs/mine-2")
    assert below(tmp_path) == ["runs", "runs/mine-1"], "what another run made stays"


# One at a time.


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_run_in_the_folder_of_a_running_one_is_refused(run: Run, resume: bool) -> None:
    said: list[str] = []

    def second() -> None:
        with pytest.raises(RequestError) as error:
            run(out=Path("r"), resume=resume, seed=0 if resume else 1)
        said.append(str(error.value))

    result = run((AtStep(1, second),), out=Path("r"), checkpoint_every=1)
    assert said and ("is at work" in said[0] if resume else "is not empty" in said[0]), said
    assert len((result.folder / "metrics.jsonl").read_text().splitlines()) == 3
    assert not (result.folder / ".lock").exists()


def test_a_second_start_is_refused_while_the_first_one_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--generator", world["generator"], "--reference", world["reference"], "--prompts", world["prompts"]]
    with taken_folder(make_config({"generator": "g", "out": "r"})):
        for resume in ([], ["--resume", "auto"]):
            assert main(["train", *words, "--out", "r", *resume]) == 2
            assert "Another process is at work in the folder r" in capsys.readouterr().err
    assert below(tmp_path) == []


def test_a_second_bench_in_the_same_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["bench", "--generators", world["generator"], "--prompts", world["prompts"], "--rewards", "colourfulness"]
    with own_folder(Path("b"), Processes()):
        assert main([*words, "--out", "b"]) == 2
        assert "Another process is at work in the folder b" in capsys.readouterr().err
    assert below(tmp_path) == []


def test_a_second_ablation_of_the_same_cells_is_refused(tmp_path: Path, world: dict[str, Any]) -> None:
    (cell,) = folders_of([make_cell({"seed": "3"})], tmp_path)
    base = TrainConfig(**world)
    listener = type("L", (), {"cell": lambda *given: None})()
    with taken_folder(make_config({"out": cell.path})), pytest.raises(RequestError, match="is at work in the folder"):
        train_cells([cell.cell], base, tmp_path, Processes(), listener)
    assert not cell.path.exists()


# Starts that come to nothing.


def fail() -> None:
    raise RunError("The reward died.")


def test_a_run_that_fails_before_its_first_step_leaves_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "dies.py").write_text("def dies(images, prompts):\n    raise ValueError('dead')\n")
    before = below(tmp_path)
    with pytest.raises(RunError, match="before its first step"):
        run(rewards={"./dies.py:dies": 1.0})
    with pytest.raises(RequestError, match="no reward named"):
        run(rewards={"nobody": 1.0}, out=Path("deep/in/r"))
    assert [item for item in below(tmp_path) if "__pycache__" not in item] == before
    (tmp_path / "r").mkdir()
    with pytest.raises(RunError):
        run(rewards={"./dies.py:dies": 1.0}, out=Path("r"))
    assert (tmp_path / "r" / "config.yaml").is_file(), "a folder that was there before is not emptied"
    assert run(out=Path("r")).folder == Path("r"), "nor is it in the way"


def test_what_somebody_else_puts_into_the_folder_stays(tmp_path: Path) -> None:
    with pytest.raises(RunError), taken_folder(make_config({"out": tmp_path / "new"})) as (folder, _):
        folder.create(make_config({}))
        (folder.path / "notes.txt").write_text("mine")
        fail()
    assert (tmp_path / "new" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "new" / "config.yaml").is_file(), "and what it was written about"


def test_an_interrupted_start_keeps_what_it_says_can_go_on(tmp_path: Path) -> None:
    with pytest.raises(Interrupted), taken_folder(make_config({"out": tmp_path / "new"})) as (folder, _):
        folder.create(make_config({}))
        raise Interrupted("Go on with --resume.")
    assert below(tmp_path / "new") == ["config.yaml", "samples"]


KILLED: dict[str, tuple[str, ...]] = {
    "at once": (),
    "with the lock": (".lock",),
    "before the settings": ("samples/",),
    "in the settings": ("samples/", ".config.yaml.partial"),
    "after the settings": ("samples/", "config.yaml"),
    "in the comparison": ("samples/comparison/before-0.png", "config.yaml"),
    "before the first step": ("samples/step-00000000.png", "config.yaml", "metrics.jsonl", "monitors.jsonl"),
    "in the first checkpoint": ("samples/", "config.yaml", "checkpoints/.step-00000001.partial/state.json"),
}
SOMEBODYS: dict[str, tuple[str, ...]] = {
    "notes": ("notes.txt",),
    "settings": ("config.yaml",),
    "pictures": ("samples/holiday.png",),
    "pictures in folders": ("samples/comparison/holiday.jpg", "config.yaml"),
    "a checkpoint": ("samples/", "config.yaml", "checkpoints/step-00000001/state.json"),
    "a hidden file": (".git/config",),
    "an export": ("samples/", "config.yaml", "final/model_index.json"),
}


def fill(folder: Path, names: tuple[str, ...]) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).mkdir() if name.endswith("/") else (folder / name).touch()
    return folder


@pytest.mark.parametrize("names", KILLED.values(), ids=KILLED)
def test_a_start_that_was_killed_is_in_nobodys_way(tmp_path: Path, names: tuple[str, ...]) -> None:
    config = make_config({"out": fill(tmp_path / "r", names)})
    with taken_folder(config) as (folder, _):
        assert folder.path == tmp_path / "r"


@pytest.mark.parametrize("names", SOMEBODYS.values(), ids=SOMEBODYS)
def test_what_is_somebodys_is_refused_and_not_touched(tmp_path: Path, names: tuple[str, ...]) -> None:
    config = make_config({"out": fill(tmp_path / "r", names)})
    before = below(tmp_path)
    with pytest.raises(RequestError, match="is not empty"), taken_folder(config):
        pass
    assert below(tmp_path) == before


def test_a_row_of_metrics_is_a_step(tmp_path: Path) -> None:
    folder = fill(tmp_path / "r", ("samples/", "config.yaml"))
    assert is_unbegun(folder)
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    assert not is_unbegun(folder)


def test_the_same_line_begins_where_a_start_was_killed(
    run: Run, world: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["distill", "--reference", world["reference"], "--prompts", world["prompts"], "--steps", "1", "--quiet"]
    words += ["--batch-size", "2", "--set", "eval_count=2", "--set", "reference_steps=1", "--out", "r"]
    Path("r/samples").mkdir(parents=True)
    assert main([*words, "--resume"]) == 2
    said = capsys.readouterr().err
    assert "no config.yaml, so no run has begun there" in said and "--resume auto" in said
    assert main([*words, "--resume", "auto"]) == 0
    assert Path("r/report.html").is_file()


# A folder that goes away.


@pytest.mark.first_case
@pytest.mark.parametrize(("where", "every"), [("moved", 1), ("moved", 2), ("removed", 9), ("exchanged", 2)])
def test_a_run_notices_at_once_that_its_folder_is_gone(run: Run, tmp_path: Path, where: str, every: int) -> None:
    def away() -> None:
        if where == "removed":
            shutil.rmtree("r")
        else:
            Path("r").rename("moved")
        if where == "exchanged":
            Path("r").mkdir()

    listener = AtStep(2, away)
    with pytest.raises(RunError, match=r"r was moved or removed .* It stopped after step [23] of 9") as error:
        run((listener,), out=Path("r"), steps=9, checkpoint_every=every)
    assert listener.seen == 2 and "\n" not in str(error.value)
    assert below(tmp_path / "r") == [], "nothing is written where the folder was"
    if where == "moved":
        assert run(out=Path("moved"), steps=4, checkpoint_every=1, resume=True).summary["steps"] == 4


# A run's own settings.


def test_a_runs_settings_begin_a_new_run_in_a_fresh_folder(run: Run, tmp_path: Path) -> None:
    first = run(out=Path("runs/one"), steps=1).folder
    whole = {name: (first / name).read_bytes() for name in below(first) if (first / name).is_file()}
    file = first / "config.yaml"
    for config in (gather({}, ["seed=3"], file), make_config(read_yaml(file) | {"seed": 3})):
        assert (config.out, config.resume, config.seed, config.steps) == (None, False, 3, 1)
    second = train(config).folder
    assert second.parent == Path("runs") and second != first
    assert {name: (first / name).read_bytes() for name in whole} == whole


def test_settings_that_still_name_their_runs_folder_do_as_well(tmp_path: Path) -> None:
    """As those of runs of before do, and of runs that were copied."""
    run = fill(tmp_path / "run", ("samples/", "metrics.jsonl"))
    (run / "config.yaml").write_text("steps: 7\nresume: true\nout: somewhere/else\n")
    config = gather({}, [], run / "config.yaml")
    assert (config.out, config.resume, config.steps) == (None, False, 7)
    assert gather({"out": tmp_path / "new"}, [], run / "config.yaml").out == tmp_path / "new"
    resumed = gather({}, ["steps=9"], run / "config.yaml", "always")
    assert (resumed.out, resumed.resume, resumed.steps) == (run, True, 9)
    mine = tmp_path / "mine.yaml"
    mine.write_text("steps: 7\nout: runs/mine\n")
    assert gather({}, [], mine).out == Path("runs/mine"), "what somebody wrote is meant"


def test_settings_alone_are_no_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("steps: 7\nout: r\n")
    assert gather({}, [], tmp_path / "config.yaml").out == Path("r")
    with pytest.raises(CheckpointError, match="no such folder"):
        gather({"out": tmp_path / "r"}, [], tmp_path / "config.yaml", "always")


def test_a_reader_needs_no_lock(tmp_path: Path) -> None:
    with taken_folder(make_config({"out": tmp_path / "r"})) as (folder, _):
        folder.create(make_config({"steps": 5}))
        assert read_yaml(RunFolder(folder.path).config)["steps"] == 5


# Resuming with other settings.


def test_a_refused_resume_names_the_command_that_begins_a_new_run(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    saved = TrainConfig(
        generator="g", rewards={"a": 1.0}, reward_options={"a": {"size": 1}, "b": {"x": "y"}}, lora_alpha=2.0,
        prompts="my prompts.txt",
    )  # fmt: skip
    folder = RunFolder(tmp_path / "my run")
    folder.create(saved)
    changes: dict[str, Any] = {
        "rewards": {"a": 2.0, "b": 0.5}, "reward_options": {"a": {"size": 2}, "b": {"x": "y"}}, "lora_alpha": None,
        "learning_rate": 2e-5, "time_range": (0.1, 0.5), "seed": 3, "floors": {"a": 0.5}, "compile": "on",
        "prompts": "other ones.txt",
    }  # fmt: skip
    asked = saved.model_copy(update=changes | {"steps": 9})
    with pytest.raises(CheckpointError) as error:
        folder.load_for_resume(asked)
    sentence = str(error.value)
    assert "learning_rate was 1e-05 and is 2e-05" in sentence and "lora_alpha was 2 and is null" in sentence
    assert all(name in sentence.split(" may change are ")[1] for name in MAY_CHANGE)
    words = shlex.split(sentence.split("Begin a new run with: ")[1])
    given: list[TrainConfig] = []
    monkeypatch.setattr("dipp_cli.actions.settings.check_names", lambda config: None)
    monkeypatch.setattr("dipp_cli.actions.train.run", lambda config, *more: given.append(config))
    assert main(words[1:]) == 0
    assert given[0] == saved.model_copy(update=changes)
