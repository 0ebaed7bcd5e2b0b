"""Small files of somebody else's folder: read where they are regular files of a size that is meant, refused elsewhere.

A pipe would be waited for without end, and a link to a device is never read to its end.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from ..errors import RequestError, first_line

MOST_BYTES = 2**26
"""Of a JSON file; the largest that is met, a tokenizer's, has a quarter of it."""
KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def check_regular(path: Path, status: os.stat_result, most: int | None = MOST_BYTES) -> None:
    """Refuse what is no regular file, or one that is larger than it can be meant to be.

    Args:
        path: for messages.
        status: of the file that the path leads to.
        most: bytes; None for any number.

    Raises:
        RequestError: it is refused.
    """
    if not stat.S_ISREG(status.st_mode):
        raise RequestError(
            f"{path} is {KINDS.get(stat.S_IFMT(status.st_mode), 'no file')}; expected a regular file. Replace it by "
            "the file itself."
        )
    if most is not None and status.st_size > most:
        raise RequestError(f"{path} has {status.st_size:,} bytes; expected {most:,} at most.")


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """What is in a regular file.

    Raises:
        RequestError: it is no regular file, or too large.
        OSError: it is missing or cannot be read.
    """
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # opening a pipe would wait for its other end
    with os.fdopen(file, "rb") as opened:
        check_regular(path, os.fstat(file), most)
        content = opened.read(most + 1)
    if len(content) > most:  # files of /proc say that they are empty
        raise RequestError(f"{path} has more than {most:,} bytes; expected fewer.")
    return content


def read_json(path: Path, most: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object in a regular file.

    Raises:
        RequestError: the file is missing, no regular file, too large, or holds none.
    """
    try:
        content = json.loads(read_bytes(path, most).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise RequestError(f"Cannot read {path}: {reason}.") from error
    if not isinstance(content, dict):
        raise RequestError(f"{path} holds a {type(content).__name__}; expected a JSON object.")
    return content
