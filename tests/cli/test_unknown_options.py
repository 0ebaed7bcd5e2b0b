"""Options that a command does not have: what is said of each, and that what is recommended can be typed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from dipp_cli.app import main
from dipp_cli.build import build_command
from dipp_cli.options import Assignments
from dipp_cli.setting_flags import FLAGS, flag_name
from dipp_cli.terminal.usage import TAKE_SETTINGS
from dipp_toolkit import TrainConfig
from dipp_toolkit.utils.assignments import parse_assignments

ANY_SETTING: str = Assignments.__metadata__[0].help  # type: ignore[attr-defined]


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command by the words that call it, groups too."""
    for name, command in group.commands.items():
        yield (*words, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))


COMMANDS = dict(commands(build_command()))
OPTIONS = {
    words: {name for parameter in command.params for name in parameter.opts} for words, command in COMMANDS.items()
}


def sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a refused command says."""
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


@pytest.mark.first_case
@pytest.mark.parametrize("command", TAKE_SETTINGS)
def test_every_setting_without_a_flag_is_named_with_what_to_type(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = 0
    for setting in TrainConfig.model_fields:
        option = f"--{setting.replace('_', '-')}"
        of_rewards = setting == "scale_schedule" or (setting in FLAGS and FLAGS[setting].of_rewards)
        if option in OPTIONS[command,]:
            continue
        said = sentence([command, option, "a b"], capsys)
        if command == "distill" and of_rewards:
            assert said.endswith("A distillation has no rewards; use dipp train.")
            continue
        flag = flag_name(setting)
        if flag in OPTIONS[command,]:
            assert said.endswith(f"Did you mean '{flag}'?")
            continue
        asked += 1
        assert f"{option} is a setting: --set " in said
        recommended = shlex.split(said[said.index("--set ") :])
        assert parse_assignments(recommended[1:]) == {setting: "a b"}
    assert asked > 40


def test_the_commands_that_take_any_setting_are_those_whose_help_says_so() -> None:
    says = {words[0] for words, command in COMMANDS.items() for param in command.params if param.help == ANY_SETTING}
    assert says == set(TAKE_SETTINGS)


@pytest.mark.parametrize("name", ["guidance", "reward_scale", "term"])
def test_what_people_ask_for_first_are_flags(name: str) -> None:
    flag = f"--{name.replace('_', '-')}"
    assert flag in OPTIONS["train",]
    assert (flag in OPTIONS["distill",]) == (name != "reward_scale")  # a distillation has no rewards


@pytest.mark.parametrize(
    ("words", "ending"),
    [
        ("train --eval-cout=8", "Did you mean the setting 'eval_count'? It is set by --set eval_count=8"),
        ("train --evalcount", "It is set by --set eval_count=VALUE"),
        ("train --decode-tiling --steps 3", "--decode-tiling is a setting: --set decode_tiling=true"),
        ("train --batch_size 3", "Did you mean '--batch-size'?"),
        ("train --BATCH-SIZE 3", "Did you mean '--batch-size'?"),
        ("train --rewards hps", "Did you mean '--reward'?"),
        ("train --gudance 2", "Did you mean '--guidance'?"),
        ("distill --reward hps", "A distillation has no rewards; use dipp train."),
        ("distill --reward_scale 2", "A distillation has no rewards; use dipp train."),
        ("score --rewards hps x.png", "Did you mean '--reward'?"),
        ("train --temperature 2", "Run dipp train --help for its options."),
        ("train -n 3", "Run dipp train --help for its options."),
        ("generate --categroy x", "Run dipp generate --help for its options."),
        ("generate --category x", "It is an option of dipp bench."),
        (
            "generate --eval-count 3",
            "It is a setting of dipp train, dipp distill, dipp ablate, dipp align, dipp tune, "
            "dipp plan, dipp profile, dipp accept: --set eval_count=3",
        ),
        ("reward check --eval-count 3", "dipp accept: --set eval_count=3"),
        (
            "--steps 3",
            "It is an option of dipp distill, dipp train, dipp ablate, dipp align, dipp generate, dipp profile, "
            "dipp tune.",
        ),
    ],
)
def test_other_spellings_and_other_commands(words: str, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sentence(words.split(), capsys).endswith(ending)


GROUPS = [words for words, command in COMMANDS.items() if hasattr(command, "commands")]
GROUPS = [words for words in GROUPS if not hasattr(COMMANDS[words], "fallback")]  # which do something alone


@pytest.mark.parametrize("words", GROUPS)
def test_a_group_alone_prints_its_help_and_nothing_else(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(list(words)) == 0
    alone = capsys.readouterr()
    assert main([*words, "--help"]) == 0
    assert alone == capsys.readouterr()
    assert alone.out.count("Usage:") == 1


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_tells_of_debug(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    assert capsys.readouterr().out.count("--debug") == 1
