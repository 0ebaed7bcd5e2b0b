"""JSON from other people: files are read only if they are regular and not too large; rows have bounded numbers.

Opening a pipe would wait for ever, and reading a device would never end.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

from ..errors import RequestError, first_line
from .messages import shown

MOST_BYTES = 2**26
"""Largest JSON file; the largest in practice, a tokenizer's, has a quarter of it."""
KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
MAX_NUMBER = 1e30
"""Largest number in an untrusted row: far above any real score, and its square is still finite."""
MAX_DIGITS = 19
"""Most digits of a whole number: seeds and counts have 64 bits."""
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""How JSON escapes a surrogate, alone or as one of a pair."""


def check_regular(path: Path, status: os.stat_result, most: int | None = MOST_BYTES) -> None:
    """Refuse what is not a regular file, or is too large.

    Args:
        path: for messages.
        status: of the file that the path leads to.
        most: bytes; None for any number.

    Raises:
        RequestError: as above.
    """
    if not stat.S_ISREG(status.st_mode):
        raise RequestError(
            f"{path} is {KINDS.get(stat.S_IFMT(status.st_mode), 'not a file')}; expected a regular file. Replace it by "
            "the file itself."
        )
    if most is not None and status.st_size > most:
        raise RequestError(f"{path} has {status.st_size:,} bytes; expected {most:,} at most.")


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file.

    Raises:
        RequestError: it is not a regular file, or too large.
        OSError: it is missing or cannot be read.
    """
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # opening a pipe would wait for its other end
    with os.fdopen(file, "rb") as opened:
        check_regular(path, os.fstat(file), most)
        content = opened.read(most + 1)
    if len(content) > most:  # files of /proc report a size of 0
        raise RequestError(f"{path} has more than {most:,} bytes; expected fewer.")
    return content


def read_json(path: Path, most: int = MOST_BYTES, then: str = "") -> dict[str, Any]:
    """The JSON object in a regular file.

    Args:
        path: the file.
        most: bytes.
        then: a sentence that says what to do where it cannot be read.

    Raises:
        RequestError: the file is missing, not regular, too large, or has no JSON object.
    """
    try:
        content = json.loads(read_bytes(path, most).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise RequestError(f"Cannot read {path}: {reason}. {then}".rstrip()) from error
    if not isinstance(content, dict):
        raise RequestError(f"{path} holds a {type(content).__name__}; expected a JSON object. {then}".rstrip())
    return content


def parse_untrusted(text: str) -> Any:
    """The content of a JSON text that somebody submitted, such as a row of a leaderboard.

    Raises:
        ValueError: it is not JSON, a number is not finite, too large or too long, or it has a lone surrogate.
        RecursionError: it is nested too deeply.
    """
    content = json.loads(text, parse_constant=_number, parse_float=_number, parse_int=_whole_number)
    if SURROGATE.search(text):
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it has a lone surrogate, which is not valid text") from None
    return content


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it has {text}, which is not a finite number")
    if abs(value) > MAX_NUMBER:
        raise ValueError(f"it has {shown(text)}; expected numbers up to {MAX_NUMBER:g}")
    return value


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"it has a whole number of {len(text)} digits; expected {MAX_DIGITS} at most")
    return int(text)
