"""Errors that are sentences. The command line prints them without a traceback."""

from __future__ import annotations


class DippError(Exception):
    """Base of every error whose message is meant for the person at the keyboard."""


class RequestError(DippError):
    """The request was wrong: an unknown name, a value out of range, a file that cannot be used. Exit code 2."""


class PluginError(RequestError):
    """A plugin, or a file given as one, cannot be used."""


class CheckpointError(RequestError):
    """A checkpoint or run folder is missing, foreign or damaged."""


class RunError(DippError):
    """The run itself failed and says why. Exit code 1."""


class BadNumbers(RunError):  # noqa: N818
    """Numbers that should be finite are not: a training skips the step where they came up, a few times."""


class Interrupted(DippError):  # noqa: N818 -- it is no error
    """The run was interrupted and saved. Exit code 130."""


def first_line(error: Exception) -> str:
    """What a library's error says in its first line, or the error's name where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
