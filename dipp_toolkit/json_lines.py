r"""JSON lines: one JSON value a line, and a line ends at a line feed alone.

`str.splitlines` also ends lines at U+2028, U+2029, U+0085 and other characters, which JSON strings hold as they are: a
prompt with one of them would be torn in two. So whatever reads JSON lines reads them here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    r"""The lines of a text with their numbers from 1, blank ones passed over, without their ends (`\n` or `\r\n`)."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a file of our own with their numbers; none where there is no file. What is no UTF-8 is replaced.

    Raises:
        OSError: it is there and cannot be read.
    """
    if not path.is_file():
        return []
    return list(numbered_lines(path.read_bytes().decode("utf-8", errors="replace").removeprefix("\ufeff")))


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The objects in a file that a run appends to, up to a line that a kill cut off; none where there is no file.

    Raises:
        OSError: it is there and cannot be read.
    """
    rows = []
    for _, line in read_lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict):
            break
        rows.append(row)
    return rows
