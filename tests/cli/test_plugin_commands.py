"""`dipp plugins new`, `show` and `check`: what they say of what is installed, and what they refuse."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from command_words import find_command
from dipp_cli.actions.plugins.check import check_entry
from dipp_cli.actions.plugins.new import LONGEST, TEMPLATES, Project
from dipp_cli.app import main
from dipp_toolkit.errors import RequestError
from dipp_toolkit.prompts.dataset import PromptList
from dipp_toolkit.protocols import Prompt
from dipp_toolkit.registry import BrokenPlugin, Entry, Registry, get_registry
from dipp_toolkit.utils.licences import Licence, Origin

GROUP = find_command(["plugins"])[0]
EXAMPLE = re.compile(r"dipp plugins(?: [a-z][\w-]*)*")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def installed(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The registry of the commands, in which nothing is registered yet."""
    for place in ("show", "check", "new"):
        monkeypatch.setattr(f"dipp_cli.actions.plugins.{place}.get_registry", lambda: registry)
    yield registry


def entry(kind: str, factory: Any, **more: Any) -> Entry:
    return Entry(kind, "mine", factory, "a thing of mine", more.pop("needs", ()), "my-plugin", **more)


def said(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> Any:
    """The JSON object of a command that succeeds."""
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# The group.


def test_a_word_that_is_no_command_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for words in (["plugins", "rewards", "emoji"], ["plugins", "list", "rewards", "emoji"]):
        assert main(words) == 0
        shown.append(capsys.readouterr().out)
    assert "emoji-judge" in shown[0]
    assert shown[0] == shown[1]
    assert main(["plugins", "shwo", "hps"]) == 2
    assert "Did you mean 'show'?" in capsys.readouterr().err
    assert main(["plugins", "--jsn"]) == 2
    assert "Did you mean '--json'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", *sorted(GROUP.commands)])
def test_every_help_has_an_example_that_works(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", *filter(None, [command]), "--help"]) == 0
    shown = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    text = shown.split("Without a command it lists: " if not command else "For instance: ")[1]
    examples = [words for words in EXAMPLE.findall(text) if not command or f"plugins {command}" in words]
    assert examples
    for example in examples:
        words = example.partition(" Arguments")[0].partition(" Options")[0]
        assert main(shlex.split(words)[1:]) == 0, words


# new.


def test_a_project_is_whole_and_says_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    made = said(["plugins", "new", "rewards", "warmth"], capsys)
    assert made == {
        "kind": "reward", "name": "warmth", "folder": "dipp-warmth", "distribution": "dipp-warmth",
        "module": "dipp_warmth", "files": made["files"],
    }  # fmt: skip
    assert sorted(made["files"]) == sorted(
        str(path.relative_to("dipp-warmth")) for path in Path("dipp-warmth").rglob("*") if path.is_file()
    )
    assert main(["plugins", "new", "term", "my-kl", "--out", "deep/er/my kl"]) == 0
    out = capsys.readouterr().out
    assert Path("deep/er/my kl/dipp_my_kl/term.py").is_file()
    for line in ("pip install -e './deep/er/my kl'", "dipp plugins check my-kl", "dipp verify --term my-kl", "licence"):
        assert line in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["reward", "sharpness"], "There is a reward 'sharpness' already, of the plugin 'pixels'. Choose another name, "
         "such as 'my-sharpness'."),
        (["generator", "emoji-reference"], "There is a reference 'emoji-reference' already, of the plugin 'emoji'."),
        (["metric", "pixels"], "A plugin 'pixels' is installed already. Choose another name, such as 'my-pixels'."),
        (["reward", "toolkit"], "A module 'dipp_toolkit' is installed already."),
        (["reward", "cli"], "A module 'dipp_cli' is installed already."),
        (["reward", "MyReward"], "such as 'my-reward'."),
        (["reward", "my_reward"], "such as 'my-reward'."),
        (["reward", "../x"], "such as 'x'."),
        (["reward", "2"], "such as 'my-plugin'."),
        (["reward", "a" * (LONGEST + 1)], f"at most {LONGEST}"),
        (["reward", "dipp-x"], "dipp plugins new reward x"),
        (["rewrd", "x"], "There is no kind of plugin named 'rewrd'. Did you mean 'reward'?"),
        (["recipe", "x"], "A recipe has no template; expected one of reward, generator,"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_a_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plugins", "new", *words]) == 2
    assert sentence in capsys.readouterr().err
    assert list(Path.cwd().iterdir()) == []


def test_a_suggested_name_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "new", "reward", "sharpness"]) == 2
    name = re.findall(r"such as '(.*)'", capsys.readouterr().err)[0]
    assert main(["plugins", "new", "reward", name]) == 0


def test_nothing_is_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    Path("dipp-warmth").mkdir()
    Path("dipp-warmth/mine.txt").write_text("kept")
    Path("file").write_text("kept")
    for words, sentence in (
        ([], "dipp-warmth is there already; nothing was written. Name another folder with --out."),
        (["--out", "file"], "file is there already"),
        (["--out", "file/below"], "file is a file."),
    ):
        assert main(["plugins", "new", "reward", "warmth", *words]) == 2
        assert sentence in capsys.readouterr().err
    assert [path.name for path in Path("dipp-warmth").iterdir()] == ["mine.txt"]
    assert {path.name for path in Path.cwd().iterdir()} == {"dipp-warmth", "file"}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_every_kind_is_written_and_every_command_of_it_exists(kind: str) -> None:
    project = Project(kind, "mine")
    files = project.files()
    assert all("{{" not in text and "{%" not in text for text in files.values())
    for command in project.commands:
        assert find_command(shlex.split(command)[1:])
        assert f"    {command}\n" in files["README.md"]
    assert "license" not in files["pyproject.toml"]


# show.


class Mine:
    """A thing with options.

    What more there is to say of it.
    """

    def __init__(self, folder: Path, *, strength: float = 1.5, name: str | None = None, **others: Any):
        """Made."""


def test_what_is_known_of_a_thing(installed: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    origin = Origin("somebody/weights", Licence("cc-by-nc-4.0", non_commercial=True))
    defaults = {"reward_scale": 5.0}
    installed.entries["reward"]["mine"] = entry(
        "reward", Mine, needs=("no_such_package", "torch"), origin=origin, defaults=defaults
    )
    (row,) = said(["plugins", "show", "mine"], capsys)["entries"]
    assert (row["kind"], row["name"], row["summary"]) == ("reward", "mine", "a thing of mine")
    assert row["about"] == "A thing with options."
    assert row["file"] == __file__
    assert (row["needs"], row["missing"]) == (["no_such_package", "torch"], ["no_such_package"])
    assert row["install"] == "pip install no_such_package"
    assert row["licence"] == "cc-by-nc-4.0 (not for commercial use)"
    assert row["weights"] == "https://huggingface.co/somebody/weights"
    assert row["defaults"] == defaults
    assert row["options"] == [
        {"name": "folder", "takes": "a path or a name", "default": "required", "about": ""},
        {"name": "strength", "takes": "a number", "default": "1.5", "about": ""},
        {"name": "name", "takes": "a text or nothing", "default": "None", "about": ""},
        {"name": "...", "takes": "", "default": "", "about": "others, which it hands on"},
    ]
    assert main(["plugins", "show", "mine"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "reward mine: a thing of mine"
    for label, text in (
        ("missing", "no_such_package; pip install no_such_package"),
        ("options", "folder: a path or a name, required"),
        ("", "strength: a number, 1.5 by default"),
        ("defaults", "reward_scale=5.0"),
    ):
        assert f"  {label:<13}{text}" in lines


def test_every_installed_thing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    names = {item.name for item in get_registry()} | {item.plugin for item in get_registry()}
    for name in names:
        found = said(["plugins", "show", name], capsys)
        for row in (*found["entries"], *found["plugins"]):
            assert row["distribution"] == "dipp-toolkit"
            assert Path(row["file"]).is_file(), row
            assert (Path(__file__).parents[2] / row["docs"]).is_file()
            assert not row["problem"]


def test_options_of_a_term_are_its_dataclass_fields(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = said(["plugins", "show", "score_divergence"], capsys)["entries"]
    assert row["options"][0] == {
        "name": "distance", "takes": "'pseudo-huber' or 'squared'", "default": "'pseudo-huber'",
        "about": "distance of the scores",
    }  # fmt: skip


def test_a_name_of_two_kinds_is_shown_twice_what_people_type_first(capsys: pytest.CaptureFixture[str]) -> None:
    found = said(["plugins", "show", "emoji-clip"], capsys)
    assert [row["kind"] for row in found["entries"]] == ["reward", "blueprint"]


def test_a_broken_plugin_and_a_wrong_name(installed: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    installed.broken.append(BrokenPlugin("shattered", "ModuleNotFoundError: No module named 'x'"))
    installed.entries["reward"]["mine"] = entry("reward", "no_such_module:Mine")
    assert said(["plugins", "show", "shattered"], capsys)["plugins"][0]["problem"].startswith("ModuleNotFoundError")
    (row,) = said(["plugins", "show", "mine"], capsys)["entries"]
    assert "importing no_such_module failed" in row["problem"]
    assert main(["plugins", "show", "shaterred"]) == 2
    assert "Nothing is installed by the name 'shaterred'. Did you mean 'shattered'?" in capsys.readouterr().err
    assert main(["plugins", "check", "shattered", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [(row["kind"], row["status"]) for row in found["checks"]] == [("plugin", "failed")]


# check.


class Figures:
    """A metric whose parts can be made wrong."""

    better: ClassVar[dict[str, str]] = {"figure": ""}

    def __init__(self, together: bool = False, other: str = "figure", size: float = 1.0):
        self.together, self.other, self.size = together, other, size

    def features(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        rows = images.mean((1, 2, 3))[:, None]
        return rows - rows.mean() if self.together else rows

    def values(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        return {self.other: self.size * features.mean((1, 2))}


def prompts_of(*texts: str) -> Any:
    return lambda: PromptList("mine", [Prompt(text) for text in texts])


def asking() -> Any:
    raise RequestError("Name a folder.")


def raising() -> Any:
    raise ValueError("no such thing")


@pytest.mark.parametrize(
    ("kind", "factory", "status", "found"),
    [
        ("metric", Figures, "ok", "Random images have figure."),
        ("metric", lambda: Figures(together=True), "failed", "are others when fewer images are looked at"),
        ("metric", lambda: Figures(other="number"), "failed", "Its figures are number, and `better` names figure."),
        ("metric", lambda: Figures(size=float("inf")), "failed", "The figure figure of random images is not finite."),
        ("metric", lambda folder: Figures(), "skipped", "options that only you know: folder."),
        ("metric", asking, "skipped", "It is made with options that only you know. Name a folder."),
        ("prompts", prompts_of("a", "b"), "ok", "2 prompts, none of them empty."),
        ("prompts", prompts_of("a", " "), "failed", "1 of its 2 prompts are empty."),
        ("prompts", prompts_of(), "failed", "It holds no prompt."),
        ("prompts", raising, "failed", "ValueError: no such thing"),
        ("environment", raising, "failed", "ValueError: no such thing"),
        ("environment", "no_such_module:made", "failed", "importing no_such_module failed"),
    ],
)
def test_what_is_found_of_a_thing(
    kind: str, factory: Any, status: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    thing = entry(kind, factory)
    monkeypatch.setitem(get_registry().entries[kind], "mine", thing)
    row = check_entry(thing)
    assert (row.status, found in row.found) == (status, True), row.found


def test_a_reward_that_fails_a_check_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Backwards:
        differentiable = True

        def __call__(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
            return images.detach().mean((1, 2, 3))

    thing = entry("reward", Backwards)
    monkeypatch.setitem(get_registry().entries["reward"], "mine", thing)
    row = check_entry(thing)
    assert row.status == "failed"
    assert row.found.startswith("differentiable: ")


def test_missing_packages_are_a_failure_unless_the_part_is_optional() -> None:
    thing = entry("metric", Figures, needs=("no_such_package",))
    assert check_entry(thing).status == "failed"
    assert check_entry(thing).found == "It needs no_such_package, not installed. Run: pip install no_such_package"
    assert check_entry(thing, optional=True).status == "skipped"


def test_options_make_what_takes_some(capsys: pytest.CaptureFixture[str]) -> None:
    named = ["plugins", "check", "group-rank"]
    (row,) = said(named, capsys)["checks"]
    assert row["status"] == "skipped"
    option = re.findall(r"--set (reward\.\S+)=", row["found"])[0]
    (row,) = said([*named, "--set", f"{option}=colourfulness"], capsys)["checks"]
    assert (row["status"], row["found"].partition(" of ")[0]) == ("ok", "Nothing failed")
    assert main([*named, "--set", f"{option}=nobody", "--json"]) == 1
    assert "nobody" in json.loads(capsys.readouterr().out)["checks"][0]["found"]
    assert main([*named, "--set", "metric.fid.images=x"]) == 2
    assert "Options are given for the metric 'fid', which is not checked; name it too." in capsys.readouterr().err
    assert main([*named, "--set", "term.x.y=1"]) == 2
    assert "expected reward.NAME.OPTION=VALUE or metric.NAME.OPTION=VALUE." in capsys.readouterr().err


def test_nothing_is_fetched_by_a_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "check", "sd-turbo", "drawbench", "hps", "--json"]) == 0
    rows = {(row["kind"], row["name"]): row for row in json.loads(capsys.readouterr().out)["checks"]}
    for kind, name in (("generator", "sd-turbo"), ("prompts", "drawbench"), ("reward", "hps")):
        assert rows[kind, name]["status"] == "skipped"
        assert "fetched" in rows[kind, name]["found"]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_emoji_world_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "check", "emoji", "reward_only", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["kind"] for row in found["checks"]} == {
        "generator", "reference", "reward", "prompts", "term", "metric", "blueprint"
    }  # fmt: skip
    assert [row for row in found["checks"] if row["status"] != "ok"] == []
