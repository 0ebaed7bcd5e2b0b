"""The help of every command shows what to type, and that works as pasted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command_words import application, check_command
from dipp_cli.app import main
from documented import Mode, spelled

EXAMPLE = re.compile(r"For instance: (dipp [^\n]*?)(?: > |, |\.? *\n|$)")
QUICK = (
    "generate", "score", "recipes", "plan", "reward show", "reward check", "plugins show", "plugins list", "train",
    "export", "bench", "leaderboard", "prompts encode",
)  # fmt: skip
"""Those that are run here, each after what it needs; longer ones have their own tests, and those on the page."""
SHORTENED = ("train", "bench")


def leaves(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


COMMANDS = dict(leaves(application()))


def example(name: str) -> str:
    found = EXAMPLE.search(COMMANDS[name].help or "")
    assert found is not None, f"dipp {name} --help has no example"
    return found[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example(name: str) -> None:
    words = shlex.split(example(name))
    assert words[: 1 + len(name.split())] == ["dipp", *name.split()]
    check_command(words[1:])


def test_examples_work_as_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in QUICK:
        words = shlex.split(example(name))[1:]
        code = main(spelled(words, Mode("small" if name in SHORTENED else "plain")))
        assert code == 0, f"{name}: {capsys.readouterr().err}"
