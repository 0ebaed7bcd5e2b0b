"""Whether the words of a `dipp` command mean something: command, options and settings of these names exist."""

from __future__ import annotations

from functools import cache
from typing import Any

from typer.main import get_command

from dipp_cli.build import build_app
from dipp_toolkit.config import TrainConfig

OPTIONS_OF = ("reward.", "term.", "metric.", "generator.")
"""What `--set` takes beside settings: options of a part, as `reward.hps.version=v2.1`."""


@cache
def application() -> Any:
    """The command line as click has it."""
    return get_command(build_app())


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the first words name, and the words after it.

    Raises:
        AssertionError: there is none.
    """
    command, rest = application(), list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands and hasattr(command, "fallback"):
            return command.commands[command.fallback], rest
        assert rest[0] in command.commands, f"There is no command 'dipp {' '.join(words)}': {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def flags_of(command: Any) -> dict[str, Any]:
    """The options of a command by every way they are spelled."""
    return {name: parameter for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def check_command(words: list[str]) -> None:
    """Refuse words that the program would refuse before it looks at what they name.

    Raises:
        AssertionError: as above.
    """
    command, rest = find_command(words)
    known, index = flags_of(command), 0
    while index < len(rest):
        flag, _, value = rest[index].partition("=")
        if flag.startswith("-") and flag != "-":
            assert flag in known or flag in ("--help", "--debug"), f"dipp {' '.join(words)} has no {flag}"
            takes = flag in known and not getattr(known[flag], "is_flag", False)
            if takes and not value and index + 1 < len(rest):
                index += 1
                value = rest[index]
            if flag == "--set":
                check_setting(value, " ".join(words))
        index += 1


def check_setting(text: str, where: str) -> None:
    """Refuse an assignment of something that is no setting.

    Raises:
        AssertionError: as above.
    """
    name = text.partition("=")[0]
    if "verify" in where.split()[:1]:  # there, they are the term's own
        return
    assert name in TrainConfig.model_fields or name.startswith(OPTIONS_OF), f"{where}: there is no setting {name}"
