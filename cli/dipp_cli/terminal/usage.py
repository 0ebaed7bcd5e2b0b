"""Sentences about command lines that cannot be parsed: an unknown option, a value of the wrong type, a missing one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import typer

from dipp_toolkit.utils.messages import shown

# Typer 0.2x brings its own copy of click; either way this is the base of every error that means "used wrongly".
_UsageBase = next(one for one in typer.BadParameter.__mro__ if one.__name__ == "ClickException")

TAKE_SETTINGS = ("train", "distill", "ablate", "plan", "accept")
"""Commands whose --set takes every setting of a run."""

FLAGS_OF_SETTINGS = {"rewards": "--reward", "floors": "--floor", "trackers": "--track"}
"""Flags that are not called as the setting they give."""

OF_REWARDS = ("reward", "rewards", "reward-scale", "pull", "kl-budget", "scale-schedule", "floor", "floors", "balance")
"""What `dipp distill` has no use for, by either spelling."""

SURE, LIKELY = 0.8, 0.65
"""Likeness, as difflib has it, of two names: one of them is misspelt, or may be."""


PLAIN = {
    "Input should be a valid integer, unable to parse string as an integer": "is no integer",
    "Input should be a valid number, unable to parse string as a number": "is no number",
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
        return f"'{program}' has no option '{option}'. {way_on or f'Run {program} --help for those there are.'}"
    message = error.format_message().rstrip(".")
    for unplain, plain in PLAIN.items():
        if unplain in message:
            flag = next((one for one in getattr(error.param, "opts", ()) if one in words or one.startswith("--")), "")
            value = _value(flag, words)
            message = message.replace(unplain, plain if value is None else f"'{shown(value)}' {plain}")
    return message if message.endswith("?") else f"{message}. Run {program} --help for what is expected."


def _way_on(context: Any, option: str, value: str | None) -> str:
    """What an unknown option may have meant, in this order: a flag or a setting by another spelling, one that is
    clearly misspelt, what other commands have by this name, and whatever is like it.
    """
    name = option.lstrip("-").replace("_", "-").lower()
    if context.command.name == "distill" and name in OF_REWARDS:
        return f"A distillation has no rewards; use {context.find_root().info_name} train."
    flags = {flag.lstrip("-"): flag for flag in _flags(context.command, context)}
    settings = _settings() if context.command.name in TAKE_SETTINGS else {}
    renamed = FLAGS_OF_SETTINGS.get(settings.get(name, ""))
    if renamed in flags.values():
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
    return f"It is a setting of {', '.join(f'{root} {one}' for one in TAKE_SETTINGS)}: " + _assignment(
        _settings()[name], value
    )


def _command(words: Sequence[str]) -> list[str]:
    """The words of a line that call a command."""
    from ..build import build_command

    command, found = build_command(), []
    for word in words:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            break
        found.append(word)
    return found


def _flags(command: Any, context: Any) -> Iterator[str]:
    for parameter in command.get_params(context):
        yield from (name for name in parameter.opts if name.startswith("--"))


def _settings() -> dict[str, str]:
    """The settings of a run as they would be flags."""
    from dipp_toolkit.config import TrainConfig

    return {name.replace("_", "-"): name for name in TrainConfig.model_fields}


def _assignment(setting: str, value: str | None) -> str:
    """What to type for a setting."""
    import shlex

    from dipp_toolkit.config import TrainConfig

    if value is None:
        value = "true" if TrainConfig.model_fields[setting].annotation is bool else "VALUE"
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
