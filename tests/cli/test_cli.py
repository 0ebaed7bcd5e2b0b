"""The command line: what words become, what is printed where, and how long it takes to say what there is."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from dipp_cli.app import main
from dipp_cli.build import build_app
from dipp_cli.terminal.progress import Bar, PlainLines, numbers
from dipp_cli.terminal.tables import interval, summary_table
from dipp_toolkit import TrainConfig, hookimpl
from dipp_toolkit.events import FirstPull, RunStartEvent, StepEvent
from dipp_toolkit.registry import Registry
from dipp_toolkit.verify import VerifyRow
from tiny import IMAGE_SHAPE, PROMPTS, tiny_pipeline

LISTING = (
    "annotated_doc", "attr", "click", "markdown_it", "mdurl", "pluggy", "pygments", "rich", "shellingham", "typer",
)  # fmt: skip
"""Packages that it takes to list what there is; rich looks for attr, and takes it where something else brought it."""
SETTINGS = ("annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection", "yaml")
"""Those that it takes to know settings."""
MODULES = 700
"""More than these, the standard library's among them, are not imported to list; PyTorch alone brings 1,500."""


def around(mean: float, half: float) -> dict[str, float]:
    """An interval as `summary.json` has it."""
    return {"mean": mean, "low": mean - half, "high": mean + half}


SUMMARY = {
    "rewards": {"blue": {"before": around(0.25, 0.125), "after": around(0.75, 0.125)}},
    "judge": {"name": "fair", "before": around(1.0, 0.25), "after": around(1.5, 0.25)},
    "gain": {"blue": around(0.5, 0.125), "fair": around(0.5, 0.25)},
    "diversity": {"before": 0.125, "after": 0.1201},
    "divergence": {"before": 0.0421, "after": 0.0642},
    "warnings": ["Something looks odd."],
    "picture": {
        "prompts": 20, "by": ["fair"], "role": "judge", "better": around(0.75, 0.125),
        "gained": [{"row": 3, "before": 0.0, "after": 2.0}], "drawn": [{"row": 9, "before": 1.0, "after": 0.5}],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline's folder."""
    return tiny_pipeline(tmp_path_factory.mktemp("tiny") / "pipeline")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[TrainConfig]:
    """Nothing is trained; the settings of every run asked for are collected."""
    configs: list[TrainConfig] = []

    def train(config: TrainConfig, *, listeners: Sequence[object] = ()) -> Any:
        print("a library talks")
        configs.append(config)
        for name in ("report.html", "before_after.png"):
            (tmp_path / name).touch()
        return SimpleNamespace(folder=tmp_path, summary=SUMMARY)

    monkeypatch.setattr("dipp_cli.actions.train.train", train)
    monkeypatch.setattr("dipp_cli.actions.settings.check_names", lambda config: None)
    return configs


def given(config: TrainConfig) -> dict[str, Any]:
    """The settings that were said aloud."""
    return {name: getattr(config, name) for name in config.model_fields_set}


# Speed, and what is imported.


@pytest.mark.parametrize(
    ("words", "more"), [(["--help"], ()), (["plugins"], SETTINGS), (["train", "--help"], SETTINGS)], ids=" ".join
)
def test_listing_imports_nothing_but_what_lists(words: list[str], more: tuple[str, ...]) -> None:
    """What is imported is what it takes: held by names and number, for seconds are those of a machine.

    `benchmarks/start_up/run.py` has the seconds.
    """
    script = (
        "import sys; from dipp_cli.app import main; code = main(sys.argv[1:]);"
        "found = {name.partition('.')[0] for name, module in sys.modules.items()"
        " if 'site-packages' in str(getattr(module, '__file__', None))};"
        "print(len(sys.modules), *sorted(found), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    count, *loaded = done.stderr.strip().splitlines()[-1].split()
    packages = {name for name in loaded if not name.startswith(("__editable", "_", "dipp_"))}
    assert packages <= {*LISTING, *more}, "a package more than what lists"
    assert int(count) < MODULES


def test_the_module_is_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "dipp_cli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == "dipp-toolkit 0.1.0\n"


def test_no_words_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    for command in ("train", "distill", "generate", "verify", "plugins"):
        assert f" {command} " in said


# Commands of plugins.


def plugin(name: str, register: Any) -> ModuleType:
    module = ModuleType(name)
    module.dipp_register_commands = hookimpl(register, specname="dipp_register_commands")  # type: ignore[attr-defined]
    return module


def test_a_plugin_adds_a_command_and_a_broken_one_hurts_nobody(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def good(app: Any) -> None:
        @app.command("greet")
        def greet(name: str) -> None:
            print(f"hello {name}")

    def raising(app: Any) -> None:
        good(app)
        raise ValueError("no such thing")

    def thief(app: Any) -> None:
        @app.command("train")
        def train() -> None:
            print("stolen")

    for name, register in (("good", good), ("raising", raising), ("thief", thief)):
        registry.add_plugin(name, lambda name=name, register=register: plugin(name, register))
    monkeypatch.setattr("dipp_cli.build.get_registry", lambda: registry)
    monkeypatch.setattr("dipp_toolkit.registry.get_registry", lambda: registry)
    assert main(["greet", "you"]) == 0
    assert capsys.readouterr().out == "hello you\n"
    build_app()  # built again: nothing is reported twice
    reasons = {item.name: item.reason for item in registry.broken}
    assert reasons.keys() == {"raising", "thief"}
    assert reasons["raising"].startswith("adding its commands failed with ValueError: no such thing (")
    assert reasons["raising"].endswith('raise ValueError("no such thing"))')
    assert reasons["thief"] == "the command 'train' exists already"
    assert main(["plugins"]) == 0
    assert "The plugin 'thief' is broken and was skipped: the command 'train' exists already" in capsys.readouterr().out


# plugins.


def test_plugins_lists_what_is_built_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    for kind, name in (("generator", "emoji-onestep"), ("reward", "emoji-clip"), ("prompts", "emoji-heldout")):
        assert name in [row["name"] for row in listing[kind]]
    assert listing["broken"] == []
    assert main(["plugins"]) == 0
    assert "emoji-preference" in capsys.readouterr().out


# What words become.


def test_train_without_arguments_leaves_all_to_the_generators_defaults(trained: list[TrainConfig]) -> None:
    assert main(["train"]) == 0
    assert given(trained[0]) == {"generator": "emoji-onestep"}


def test_distill_without_arguments_starts_from_the_references_network(trained: list[TrainConfig]) -> None:
    assert main(["distill"]) == 0
    assert given(trained[0]) == {"generator": None, "reference": "emoji-reference", "rewards": {}}


def test_flags_become_settings(trained: list[TrainConfig], tmp_path: Path) -> None:
    words = "--generator g --reference r --reward a=2,b --prompts p --judge j --steps 7 --batch-size 3 --seed 5"
    more = ["--out", str(tmp_path / "x"), "--set", "reward.a.version=v2", "--set", "time_range=0.1,0.9"]
    assert main(["train", *words.split(), "--device=cpu", "--precision=bf16", "--track=tensorboard,wandb", *more]) == 0
    assert given(trained[0]) == {
        "generator": "g", "reference": "r", "rewards": {"a": 2.0, "b": 1.0}, "prompts": "p", "judge": "j", "steps": 7,
        "batch_size": 3, "seed": 5, "device": "cpu", "precision": "bf16", "trackers": ("tensorboard", "wandb"),
        "out": tmp_path / "x", "reward_options": {"a": {"version": "v2"}}, "time_range": (0.1, 0.9),
    }  # fmt: skip


def test_flags_go_before_the_file_and_the_file_before_the_fallback(trained: list[TrainConfig], tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("generator: mine\nsteps: 5\nseed: 9\nresume: true\nreward_options: {a: {x: 1, y: 1}}\n")
    assert main(["train", "--config", str(file), "--steps", "6", "--set", "reward.a.y=2"]) == 0
    assert given(trained[0]) == {"generator": "mine", "steps": 6, "seed": 9, "reward_options": {"a": {"x": 1, "y": 2}}}


def test_resume_reads_the_runs_own_settings(trained: list[TrainConfig], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(TrainConfig(generator="g", steps=10, learning_rate=3e-4).to_yaml())
    for resume in (["--resume"], ["--resume", "auto"]):
        assert main(["train", *resume, "--out", str(run), "--steps", "20"]) == 0
        config = trained.pop()
        assert (config.generator, config.learning_rate, config.steps) == ("g", 3e-4, 20)
        assert (config.out, config.resume) == (run, True)


def test_resume_auto_begins_where_there_is_nothing(trained: list[TrainConfig], tmp_path: Path) -> None:
    assert main(["train", "--resume", "auto", "--out", str(tmp_path / "new")]) == 0
    assert given(trained[0]) == {"generator": "emoji-onestep", "out": tmp_path / "new"}


# What is printed.


def test_train_prints_a_table_and_where_things_are(
    trained: list[TrainConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train"]) == 0
    printed = capsys.readouterr()
    for part in (
        "blue",
        "0.250 [0.125, 0.375]",
        "fair (judge)",
        "1.500 [1.250, 1.750]",
        "diversity",
        "0.1201",
        "0.0642",
    ):
        assert part in printed.out
    assert "Warning: Something looks odd." in printed.out
    assert str(tmp_path / "report.html") in printed.out
    assert "before_after.png  the largest gains by fair, and prompts at random" in printed.out
    assert str(tmp_path / "final") not in printed.out
    assert "a library talks" in printed.err


def test_json_is_one_object_alone_on_stdout(
    trained: list[TrainConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path), **SUMMARY}


def test_an_interval_shows_as_many_decimals_as_it_needs() -> None:
    assert interval({"mean": 0.5, "low": 0.4, "high": 0.6}) == "0.500 [0.400, 0.600]"
    assert interval({"mean": 1e-4, "low": 0.9e-4, "high": 1.1e-4}) == "0.000100 [0.000090, 0.000110]"
    assert interval({"mean": 1.0, "low": 1.0, "high": 1.0}) == "1.000 [1.000, 1.000]"
    assert interval(None) == "-"


def test_the_table_of_a_narrow_terminal_cuts_nothing_off() -> None:
    screen = io.StringIO()
    Console(file=screen, width=80).print(summary_table(SUMMARY, 80))
    assert "…" not in screen.getvalue()
    assert "[1.250, 1.750]" in screen.getvalue()


def follow(listener: Any, steps: int, first: int = 0) -> None:
    config = TrainConfig(steps=steps)
    with listener:
        listener.dipp_on_run_start(RunStartEvent(config, Path("runs/x"), first))
        for step in range(first + 1, steps + 1):
            metrics = {
                "reward/blue": step / steps,
                "divergence": 0.25,
                "images_per_second": 100.0,
                "grad_norm/reward/blue": 9.0,
            }
            listener.dipp_on_step(StepEvent(step, steps, metrics))


def test_plain_lines_come_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    follow(PlainLines(), 200)
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith("step ")]
    assert printed.out == ""
    assert len(lines) == 10
    assert lines[0].startswith("step 20/200  blue 0.100  divergence 0.25  100 images/s")


@pytest.mark.parametrize("quiet", [True, False])
def test_the_pull_stands_above_everything_from_the_first_step_on(
    quiet: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = io.StringIO()
    listener: Any = PlainLines() if quiet else Bar(Console(file=screen, force_terminal=True, width=200))
    with listener:
        listener.dipp_on_run_start(RunStartEvent(TrainConfig(steps=300), Path("runs/x"), 0))
        listener.dipp_on_step(StepEvent(1, 300, {}, pull=FirstPull(1e-5, 2.0)))
    shown = capsys.readouterr().err if quiet else screen.getvalue()
    assert "--reward-scale 140000 would make it 0.7" in shown


def test_speed_is_shown_with_a_digit_that_means_something() -> None:
    assert numbers({"images_per_second": 0.42}) == "0.4 images/s"
    assert numbers({"images_per_second": 123.4}) == "123 images/s"


def test_the_bar_shows_the_numbers_and_where_a_resumed_run_stands() -> None:
    screen = io.StringIO()
    bar = Bar(Console(file=screen, force_terminal=True, width=80))
    follow(bar, 40, first=20)
    shown = screen.getvalue()
    assert "blue 1.000  divergence 0.25  100 images/s" in shown
    assert "40/40" in shown
    assert "comparing before and after" in shown
    assert bar._progress.tasks[-1].start_time is not None


# verify.


@pytest.mark.parametrize(("error", "code"), [(0.001, 0), (0.5, 1), (float("nan"), 1)])
def test_verify_exits_by_what_it_found(
    error: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}
    row = VerifyRow(
        "linear",
        "integral_kl",
        "exact",
        "covariance",
        [[1.0, 0.0], [0.0, 1.0]],
        [[1.0, 0.0], [0.0, 1.25]],
        error,
        0.002,
    )

    def run_verify(**options: Any) -> list[VerifyRow]:
        asked.update(options)
        return [row]

    monkeypatch.setattr("dipp_toolkit.verify.run_verify", run_verify)
    assert main(["verify", "--case", "linear", "--case", "quadratic", "--seed", "3"]) == code
    assert asked == {"term": None, "cases": ["linear", "quadratic"], "seed": 3, "options": {}}
    printed = capsys.readouterr().out
    assert ("FAILS" if code else "holds") in printed
    assert "1.250" in printed
    assert main(["verify", "--json"]) == code
    assert json.loads(capsys.readouterr().out) == [row.as_dict()]


def test_verify_thorough_has_rows_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    matrix = [[1.0] * 6] * 7
    row = VerifyRow("six-gradient", "integral_kl[flow]", "exact", "gradient", matrix, matrix, 0.0, 0.001)
    monkeypatch.setattr("dipp_toolkit.verify.run_thorough", lambda cases, seed: asked.append((cases, seed)) or [row])
    assert main(["verify", "--thorough", "--case", "six-gradient", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    assert "holds" in printed and "1.000" not in printed, "matrices of six dimensions are for --json"
    assert main(["verify", "--thorough", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [row.as_dict()]
    assert asked == [(["six-gradient"], 3), (None, 0)]


# generate, with real networks.


def test_generate_writes_numbered_pictures_and_a_grid(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pictures"
    words = ["generate", "--generator", str(tiny), "--prompt", PROMPTS[0], "--prompt", "../..: ÄÖ", "--out", str(out)]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    names = ["001-a-red-cat.png", "002-image.png", "grid.png", "prompts.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert [*told["images"], told["grid"]] == [str(out / name) for name in names[:3]]
    assert json.loads((out / "prompts.json").read_text()) == dict(zip(names, told["prompts"], strict=False))
    assert (told["steps"], told["generator"], told["prompts"][0]) == (1, str(tiny), PROMPTS[0])
    with Image.open(out / names[0]) as image:
        assert image.size == IMAGE_SHAPE[:0:-1]
        first = image.tobytes()
    assert main(words) == 0
    assert f"2 images in {out}" in capsys.readouterr().out
    with Image.open(out / names[0]) as image:
        assert image.tobytes() == first
    assert main([*words, "--seed", "1"]) == 0
    with Image.open(out / names[0]) as image:
        assert image.tobytes() != first


def test_generate_samples_a_reference_into_one_picture(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(PROMPTS))
    pictures = []
    for steps in ("1", "3"):
        out = tmp_path / f"grid-{steps}.png"
        words = [
            "generate",
            "--reference",
            str(tiny),
            "--prompts",
            str(file),
            "--count",
            "2",
            "--steps",
            steps,
            "--guidance",
            "2",
        ]
        assert main([*words, "--out", str(out)]) == 0
        with Image.open(out) as image:
            assert image.size == (2 * IMAGE_SHAPE[2] + 2, IMAGE_SHAPE[1])
            pictures.append(image.tobytes())
    assert pictures[0] != pictures[1]


# train, with real networks.


def test_train_ends_with_pictures_numbers_and_a_pipeline(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, reward, out = tmp_path / "prompts.txt", tmp_path / "blue.py", tmp_path / "run"
    prompts.write_text("\n".join(PROMPTS))
    reward.write_text(
        "def blueness(images, prompts):\n    return images[:, 2].mean((1, 2)) - images[:, 0].mean((1, 2))\n"
    )
    words = f"train --generator {tiny} --reference {tiny} --prompts {prompts} --reward {reward}:blueness".split()
    small = f"--batch-size 4 --set eval_count=4 --set reference_steps=2 --steps 3 --out {out}".split()
    assert main([*words, *small, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["folder"] == str(out)
    assert told["rewards"][f"{reward}:blueness"].keys() >= {"before", "after"}
    assert main(["train", "--resume", "--out", str(out), "--steps", "5"]) == 0
    assert "resuming at step 3" in capsys.readouterr().err
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5]
    # The folder works as a generator, and its settings as a file of settings.
    assert main(["generate", "--generator", str(out), "--prompt", PROMPTS[0], "--out", str(tmp_path / "one.png")]) == 0
    assert main(["train", "--config", str(out / "config.yaml"), "--out", str(tmp_path / "again"), "--steps", "1"]) == 0
