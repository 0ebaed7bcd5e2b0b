"""Where words go: results to stdout, progress and errors to stderr, and with `--json` one object alone on stdout."""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

BEYOND_ASCII = re.compile("[\\x7f-\\U0010ffff]")
COMMANDS = ("::", "##[")
"""What a line begins with that CI systems take for a command to them."""
JOINERS = "\u200c\u200d"
"""They join letters, and pictures of people into one."""


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Send everything that anybody prints to stderr, so that stdout holds the result alone."""
    from contextlib import redirect_stdout

    with redirect_stdout(sys.stderr):
        yield


def is_first_process() -> bool:
    """Whether this is the one of a launcher's processes that speaks."""
    return os.environ.get("RANK", "0") == "0"


def plain_line(text: object) -> str:
    """A text on one line, as it is: what moves a cursor, turns the reading round or ends a line stands as an escape.

    Words of strangers come through here: labels, names, warnings of a submission, whatever a reward's file says.
    Nothing in them is a command to a terminal, or to a CI system that reads commands from the beginnings of lines.
    """
    line = "".join(letter if _is_plain(letter) else _escape(letter) for letter in str(text))
    start = line.lstrip()
    return line[: len(line) - len(start)] + _escape(start[0]) + start[1:] if start.startswith(COMMANDS) else line


def plain_lines(text: str) -> str:
    """The same of a text that may have several lines, such as a cell of a table."""
    return "\n".join(map(plain_line, text.split("\n")))


def print_line(text: object, file: TextIO | None = None, flush: bool = True) -> None:
    """One line for a person, `plain_line` of a text, on stdout or on another stream."""
    print(plain_line(text), file=file or sys.stdout, flush=flush)


def _is_plain(letter: str) -> bool:
    return letter.isprintable() or letter in JOINERS or unicodedata.category(letter) == "Zs"


def _escape(letter: str) -> str:
    code = ord(letter)
    if letter == "\n":
        return "\\n"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def print_json(value: Any) -> None:
    """One JSON value on stdout; numbers that are not finite become null, as JSON has none."""
    text = json.dumps(_plain(value), indent=2, allow_nan=False, ensure_ascii=False)
    # JSON leaves some commands to a terminal as they are, and half a character, which a file's name may hold.
    text = BEYOND_ASCII.sub(_json_escape, text)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:  # where a console does not know a character, all are written as JSON's escapes
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=True)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _json_escape(match: re.Match[str]) -> str:
    letter = match.group()
    if _is_plain(letter):
        return letter
    return f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else json.dumps(letter)[1:-1]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(child) for child in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
