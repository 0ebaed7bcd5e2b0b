"""Sentences about command lines that cannot be parsed: an unknown option, a value of the wrong type, a missing one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import typer

from dipp_toolkit.utils.messages import shown

from ..setting_flags import FLAGS, flag_name, setting_schemas

# Typer 0.2x brings its own copy of click; either way this is the base of every error that means "used wrongly".
_UsageBase = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

TAKE_SETTINGS = ("train", "distill", "ablate", "align", "tune", "plan", "profile", "accept")
"""Commands whose --set takes every setting of a run."""

SURE, LIKELY = 0.8, 0.65
"""Likeness, as difflib has it, of two names: one of them is misspelt, or may be."""


PLAIN = {
    "Input should be a valid integer, unable to parse string as an integer": "is not an integer",
    "Input should be a valid number, unable to parse string as a number": "is not a number",
}
"""What the library says of a value that cannot be read, and what is said here after the value."""


def is_usage_error(error: BaseException) -> bool:
    """Whether an error is about the words on the command line."""
    return isinstance(error, _UsageBase)


def is_bare_group(error: BaseException) -> bool:
    """Whether an error only says that a group of commands stands alone, which asks for its help."""
    return type(error).__name__ == "NoArgsIsHelpError"


def usage_sentence(error: Any, words: Sequence[str] = ()) -> str:
    """What was wrong with the words, and what may have been meant.

    Args:
        error: of typer.
        words: of the command line; the value of an unknown option is read from them.
    """
    context = getattr(error, "ctx", None)
    program = context.command_path if context is not None else " ".join(("dipp", *_command(words)))
    option = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and option and context is not None:
        way_on = _way_on(context, option, _value(option, words))
        return f"'{program}' has no option '{option}'. {way_on or f'Run {program} --help for its options.'}"
    message = error.format_message().rstrip(".")
    for technical, plain in PLAIN.items():
        if technical in message:
            flag = next(
                (name for name in getattr(error.param, "opts", ()) if name in words or name.startswith("--")), ""
            )
            value = _value(flag, words)
            message = message.replace(technical, plain if value is None else f"'{shown(value)}' {plain}")
    return message if message.endswith("?") else f"{message}. Run {program} --help for its usage."


def _way_on(context: Any, option: str, value: str | None) -> str:
    """What an unknown option may have meant, in this order: a flag or a setting by another spelling, one that is
    clearly misspelt, what other commands have by this name, and whatever is like it.
    """
    name = option.lstrip("-").replace("_", "-").lower()
    if context.command.name == "distill" and name in _reward_options():
        return f"A distillation has no rewards; use {context.find_root().info_name} train."
    flags = {flag.lstrip("-"): flag for flag in _flags(context.command, context)}
    settings = _settings() if context.command.name in TAKE_SETTINGS else {}
    renamed = flag_name(settings[name]) if name in settings else ""
    if renamed.removeprefix("--") != name and renamed in flags.values():
        return f"Did you mean '{renamed}'?"
    if name in settings and name not in flags:
        return f"{option} is a setting: {_assignment(settings[name], value)}"
    close = get_close_matches(name, [*flags, *settings], n=1, cutoff=SURE)
    elsewhere = "" if close else _elsewhere(context, name, value)
    close = close or get_close_matches(name, [*flags, *settings], n=1, cutoff=LIKELY)
    if elsewhere or not close:
        return elsewhere
    guess = close[0]
    if guess in flags:
        return f"Did you mean '{flags[guess]}'?"
    return f"Did you mean the setting '{settings[guess]}'? It is set by {_assignment(settings[guess], value)}"


def _elsewhere(context: Any, name: str, value: str | None) -> str:
    """Which other commands have an option or a setting of this name; empty where none has."""
    commands = _commands_with(context, f"--{name}")
    if commands:
        return f"It is an option of {', '.join(commands)}."
    if name not in _settings():
        return ""
    root = context.find_root().info_name
    return f"It is a setting of {', '.join(f'{root} {command}' for command in TAKE_SETTINGS)}: " + _assignment(
        _settings()[name], value
    )


def _command(words: Sequence[str]) -> list[str]:
    """The words of a line that call a command."""
    from ..build import build_command

    command, names = build_command(), []
    for word in words:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            break
        names.append(word)
    return names


def _flags(command: Any, context: Any) -> Iterator[str]:
    for parameter in command.get_params(context):
        yield from (name for name in parameter.opts if name.startswith("--"))


def _settings() -> dict[str, str]:
    """The settings of a run as they would be flags."""
    return {name.replace("_", "-"): name for name in setting_schemas()}


def _reward_options() -> set[str]:
    """Flags and settings that a distillation has no use for, by either spelling."""
    settings = [name for name, flag in FLAGS.items() if flag.of_rewards]
    flags = {flag_name(name).removeprefix("--") for name in settings}
    return flags | {name.replace("_", "-") for name in (*settings, "scale_schedule")}


def _assignment(setting: str, value: str | None) -> str:
    """What to type for a setting."""
    import shlex

    if value is None:
        value = "true" if setting_schemas()[setting].get("type") == "boolean" else "VALUE"
    return f"--set {shlex.quote(f'{setting}={value}')}"


def _commands_with(context: Any, option: str) -> list[str]:
    """The other commands that have an option of this name, as they are typed."""
    root = context.find_root()
    return [
        f"{root.info_name} {name}"
        for name, command in getattr(root.command, "commands", {}).items()
        if command is not context.command and option in _flags(command, context)
    ]


def _value(option: str, words: Sequence[str]) -> str | None:
    """The value that stands with an option, None where none does."""
    for index, word in enumerate(words):
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
        if word == option:
            following = words[index + 1 : index + 2]
            return following[0] if following and not following[0].startswith("--") else None
    return None
