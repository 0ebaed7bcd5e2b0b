"""Sentences about command lines that cannot be parsed: an unknown option, a value of the wrong type, a missing one."""

from __future__ import annotations

from typing import Any

import typer

from dipp_toolkit.naming import nearest

# Typer 0.2x brings its own copy of click; either way this is the base of every error that means "used wrongly".
_UsageBase = next(one for one in typer.BadParameter.__mro__ if one.__name__ == "ClickException")


def is_usage_error(error: BaseException) -> bool:
    """Whether an error is about the words on the command line."""
    return isinstance(error, _UsageBase)


def usage_sentence(error: Any) -> str:
    """What was wrong with the words, and what may have been meant."""
    context = getattr(error, "ctx", None)
    program = context.command_path if context is not None else "dipp"
    option = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and option:
        known = (
            [name for parameter in context.command.get_params(context) for name in parameter.opts] if context else []
        )
        guess = nearest(option, known)
        hint = f"Did you mean '{guess}'?" if guess else f"Run {program} --help for those there are."
        return f"'{program}' has no option '{option}'. {hint}"
    message = error.format_message().rstrip(".")
    return message if message.endswith("?") else f"{message}. Run {program} --help for what is expected."
