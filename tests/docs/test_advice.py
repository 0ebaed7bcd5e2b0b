"""What messages advise exists: the commands, options and settings that texts of the sources and the pages name."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_words import OPTIONS_OF, check_command, find_command, flags_of
from dipp_toolkit.config import TrainConfig
from dipp_toolkit.registry import get_registry
from documented import ROOT

FOLDERS = ("dipp_toolkit", "cli", "plugins")
HOLE = "NAME"
"""Stands for what a text is filled with."""
COMMAND = re.compile(r"(?<![\w'./-])dipp (?=[a-z-])([^.;,:)\"|]*(?:\.(?!\s|$)[^.;,:)\"|]*)*)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
ASSIGNMENT = re.compile(r"--set '?([\w.-]+)=")
SETTING = re.compile(r"(?<![\w.-])([a-z][a-z_]+)=[\w.]+")

BY_FILE = {
    "dipp_toolkit/experiments/ablation/": ("ablate",),
    "dipp_toolkit/experiments/bench/": ("bench",),
    "dipp_toolkit/experiments/leaderboard/": ("leaderboard",),
    "dipp_toolkit/experiments/voting/": ("vote",),
    "dipp_toolkit/evaluation/image_prompts.py": ("score", "vote"),
    "dipp_toolkit/planning/": ("plan",),
    "dipp_toolkit/verify/": ("verify",),
    "dipp_toolkit/rewards/remote/serve": ("reward serve",),
    "dipp_toolkit/rewards/remote/limits": ("reward serve",),
    "dipp_toolkit/rewards/remote/http": ("reward serve",),
    "dipp_toolkit/training/setup/assembly.py": ("train", "distill"),
    "dipp_toolkit/training/setup/resolve.py": ("train", "distill"),
    "dipp_toolkit/monitoring/monitors.py": ("train", "distill", "ablate"),
    "dipp_toolkit/training/publish.py": ("train", "distill"),
    "dipp_toolkit/training/run_state/run_folder.py": ("train", "distill"),
    "cli/dipp_cli/actions/ablate.py": ("ablate",),
    "cli/dipp_cli/actions/bench.py": ("bench",),
    "cli/dipp_cli/actions/generate.py": ("generate",),
    "cli/dipp_cli/actions/leaderboard.py": ("leaderboard",),
    "cli/dipp_cli/actions/plan.py": ("plan",),
    "cli/dipp_cli/actions/plugins/new.py": ("plugins new",),
    "cli/dipp_cli/actions/plugins/check.py": ("plugins check",),
    "cli/dipp_cli/actions/prompts.py": ("prompts encode",),
    "cli/dipp_cli/actions/reward/serve.py": ("reward serve",),
    "cli/dipp_cli/actions/reward/check.py": ("reward check",),
    "cli/dipp_cli/actions/reward/loading.py": ("reward check", "score"),
    "cli/dipp_cli/actions/score.py": ("score",),
    "cli/dipp_cli/actions/vote.py": ("vote",),
}
"""Commands whose texts a file or folder holds: what it advises, each of them takes."""
ELSEWHERE = {
    "cli/dipp_cli/actions/reward/loading.py": {"--reward"},  # as other commands take it
    "cli/dipp_cli/actions/reward/serve.py": {"--reward"},
}
FOREIGN = re.compile(r"(?:hf|pip|accelerate|torchrun|python) [^;,'\"]*")
"""Commands of others, whose options are theirs."""


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every text of a source file with its line, holes filled with `HOLE`; docstrings are for those who read code."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bodies = [node.body for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list)]
    passed = {id(statement.value) for body in bodies for statement in body if isinstance(statement, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            passed |= {id(part) for part in ast.walk(node)} - {id(node)}
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed:
            yield node.lineno, node.value


SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
MESSAGES = [
    (path.relative_to(ROOT).as_posix(), line, text)
    for path in SOURCES
    for line, text in texts_of(path)
    if " " in text and (FLAG.search(text) or COMMAND.search(text))
]


def commands_of(file: str) -> tuple[str, ...]:
    """Commands that show the texts of a file; none where many do."""
    return next((names for start, names in BY_FILE.items() if file.startswith(start)), ())


def every_flag() -> set[str]:
    """The options of all commands."""
    flags, waiting = {"--help", "--debug"}, [find_command([])[0]]
    while waiting:
        command = waiting.pop()
        flags |= flags_of(command).keys()
        waiting += list(getattr(command, "commands", {}).values())
    return flags


def test_there_is_advice_to_look_at() -> None:
    assert len(MESSAGES) > 60
    assert {"dipp_toolkit", "cli", "plugins"} == {file.split("/")[0] for file, _, _ in MESSAGES}


@pytest.mark.parametrize("file", sorted({file for file, _, _ in MESSAGES}))
def test_what_a_file_advises_exists(file: str) -> None:
    flags = every_flag()
    for name, line, text in MESSAGES:
        if name != file:
            continue
        where = f"{file}:{line}: {text}"
        own = FOREIGN.sub("", text)
        for words in COMMAND.findall(own):
            check_advised(words, where)
        spared = ELSEWHERE.get(file, set())
        for flag in FLAG.findall(COMMAND.sub("", own)):
            assert flag in flags, where
            for command in commands_of(file):
                assert flag in spared or flag in flags_of(find_command(command.split())[0]), f"{command}: {where}"
        for setting in ASSIGNMENT.findall(own):
            assert setting in TrainConfig.model_fields or setting.startswith((*OPTIONS_OF, HOLE)), where
            if commands_of(file):
                assert any("--set" in flags_of(find_command(words.split())[0]) for words in commands_of(file)), where


def check_advised(words: str, where: str) -> None:
    """Refuse the words after `dipp` in a sentence, as far as they are a command's and not the sentence's.

    Raises:
        AssertionError: there is no such command, or it has not these options.
    """
    parts = shlex.split(words.replace("'", " "))
    command, rest = find_command(parts[:1])
    while rest == [] and hasattr(command, "commands") and len(parts) > 1 and parts[1] in command.commands:
        command, rest = command.commands[parts[1]], parts[2:]
    flags = flags_of(command)
    for flag in FLAG.findall(words):
        assert flag in flags or flag in ("--help", "--debug"), f"dipp {words} has no {flag}: {where}"


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_commands_in_the_text_of_a_page_exist(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for command in re.findall(r"`dipp ([a-z][^`]*)`", prose):
        words = [word for word in shlex.split(command.replace("\n", " ")) if word not in ("...", "…")]
        check_command(words)


def test_names_in_advice_are_installed() -> None:
    """Parts that a sentence names as examples: `--generators emoji-reference,emoji-onestep`."""
    registry = get_registry()
    names = {entry.name for entry in registry}
    for file, line, text in MESSAGES:
        for flag in ("--generators", "--reward"):
            for value in re.findall(rf"{flag} ([a-z][\w,-]+)\b(?!\()", text):
                assert set(value.split(",")) <= names | {"mine", "gives", "names", "takes"}, f"{file}:{line}: {text}"
