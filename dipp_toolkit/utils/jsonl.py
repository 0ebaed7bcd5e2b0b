r"""JSON lines: one JSON value a line, and a line ends at a line feed alone.

`str.splitlines` also ends lines at U+2028, U+2029, U+0085 and other characters, which JSON strings hold as they are: a
prompt with one of them would be torn in two. So whatever reads JSON lines reads them here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ..errors import CheckpointError, RequestError
from .atomic import naming, write_text
from .json_forms import in_form


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    r"""The lines of a text with their numbers from 1, blank ones passed over, without their ends (`\n` or `\r\n`)."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a file of our own with their numbers; none where there is no file. Invalid UTF-8 is replaced.

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


class MetricsFile:
    """`metrics.jsonl`, appended a line a step.

    Args:
        path: the file.
        step: lines of later steps are dropped first, so that a resumed run writes them anew.
    """

    def __init__(self, path: Path, step: int):
        kept = []
        if step > 0:
            for _, line in read_lines(path):
                try:
                    at = json.loads(line)["step"]
                    if at > step:
                        break
                except (ValueError, LookupError, TypeError, RecursionError):
                    break  # a line cut off by a kill; everything after it is later
                kept.append(line + "\n")
        write_text(path, "".join(kept))
        self.path = path
        # Without a buffer: what a full disk has refused is not tried again when the file is closed.
        self._file = path.open("ab", buffering=0)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row.

        Raises:
            OSError: the disk does not take it; a part of it may be there, which is cut off when the run goes on.
        """
        line = memoryview((json.dumps(dict(row)) + "\n").encode())
        with naming(self.path):
            while line:
                line = line[self._file.write(line) or 0 :]

    def sync(self) -> None:
        """Make all rows so far durable."""
        with naming(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_step_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of steps, up to one that a kill cut off; none where there is no file."""
    return list(takewhile(lambda row: type(row.get("step")) in (int, float), whole_rows(path)))


class _Warning(BaseModel):
    name: str
    text: str


class _Look(BaseModel):
    """What every line of `monitors.jsonl` and `diagnostics.jsonl` has where it has it."""

    rewards: dict[str, Any] | None = None
    warnings: list[_Warning] | None = None


def read_looks(path: Path) -> list[dict[str, Any]]:
    """The lines of `monitors.jsonl` or `diagnostics.jsonl`; see `read_step_rows`.

    Raises:
        CheckpointError: a line has something of another type than is written there.
    """
    rows = read_step_rows(path)
    try:
        for row in rows:
            in_form(row, _Look, f"The line of step {row['step']} of {path}", "Remove that line.")
    except RequestError as error:
        raise CheckpointError(str(error)) from error
    return rows


class MonitorsFile(MetricsFile):
    """`monitors.jsonl`, open for the lines to come, and the lines so far.

    Args:
        path: the file.
        step: lines of later steps are dropped first, so that a resumed run writes them anew.
    """

    def __init__(self, path: Path, step: int):
        super().__init__(path, step)
        self.rows = read_looks(path)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one line, whole on the disk before the run goes on."""
        super().write(row)
        self.sync()
        self.rows.append(dict(row))
