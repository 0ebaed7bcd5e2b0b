"""Errors that are sentences. The command line prints them without a traceback."""

from __future__ import annotations

import re

ADDRESS = re.compile(
    r"(?P<scheme>\b(?:[A-Za-z][A-Za-z0-9+.-]*://|https?:/))(?P<user>[^\s/@'\"<>]*@)?(?P<rest>[^\s?#'\"<>]*)"
    r"(?P<query>\?[^\s'\"<>]+|#[^\s'\"<>]*=[^\s'\"<>]*)?"
)
"""A path made of an address has lost one of its slashes."""
HIDDEN = "..."
PUBLIC_QUERY = re.compile(r"[?&](?:model|template|against)=.*")
"""What of a query tells two judges apart and is no secret."""


class DippError(Exception):
    """Base of every error whose message is meant for the person at the keyboard, and for logs and reports.

    Secrets that an address holds, a password or `?token=...`, are left out of the message, whoever raises it.
    """

    def __init__(self, *arguments: object):
        super().__init__(*map(_public, arguments))


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


class Interrupted(KeyboardInterrupt):
    """The run was interrupted and saved. Like any Ctrl-C, no `except Exception` swallows it. Exit code 130."""

    def __init__(self, *arguments: object):
        super().__init__(*map(_public, arguments))


ALLOCATION = re.compile(r"tried to allocate (?P<torch>\d+) bytes|malloc of size (?P<arrow>\d+) failed")


def first_line(error: BaseException) -> str:
    """The first line of a library's error, or the error's name where it has no message.

    An allocator's error becomes what it means, secrets in addresses are left out, and so is a full stop at the end.
    """
    text = str(error).strip()
    request = ALLOCATION.search(text)
    if request is not None:
        return f"it needs {int(request['torch'] or request['arrow']) / 2**30:,.1f} GiB of memory, more than is free"
    if isinstance(error, MemoryError):
        return "it needs more memory than is free"
    return without_secrets(text.splitlines()[0]).rstrip(".") if text else type(error).__name__


def _public(argument: object) -> object:
    return without_secrets(argument) if isinstance(argument, str) else argument


def without_secrets(text: str) -> str:
    """A text whose addresses have lost what may be secret: user and password, the query, values of a fragment."""

    def public(match: re.Match[str]) -> str:
        query = _public_query(match["query"]) if match["query"] else ""
        return f"{match['scheme']}{HIDDEN + '@' if match['user'] else ''}{match['rest']}{query}"

    return ADDRESS.sub(public, text) if ":/" in text else text


def _public_query(query: str) -> str:
    """A query or a fragment: the first part that may be secret and all behind it are left out."""
    shown = ""
    for part in re.findall(r"[?&#;][^?&#;]*", query):
        if not PUBLIC_QUERY.fullmatch(part):
            return shown + part[0] + HIDDEN
        shown += part
    return shown
