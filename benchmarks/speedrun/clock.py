"""The processor seconds of a run, kept over interruptions, with pauses that do not count."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dipp_toolkit.utils.atomic import write_text
from dipp_toolkit.utils.jsonl import whole_rows


def processor_seconds() -> float:
    """Of all threads of this process so far, and of processes that it started and waited for, such as compilers."""
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + others.ru_utime + others.ru_stime


class Rows:
    """A file of JSON lines that is appended to; a line that a kill cut off is dropped when it is opened again.

    Args:
        path: the file; its folder is made.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.rows = path, whole_rows(path)
        if path.is_file():
            write_text(path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; whole in the system's hands when this returns."""
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


@dataclass
class Clock:
    """Counts from `begin` on, beginning with what the file says of the pieces before.

    All that earlier pieces spent counts, updates that were lost and are made again included: an interruption makes an
    entry slower, never faster.

    Attributes:
        path: of the file.
        now: gives seconds.
    """

    path: Path
    now: Callable[[], float] = processor_seconds
    _file: Rows = field(init=False)
    _before: float = field(init=False)
    _began: float = field(init=False, default=0.0)
    _paused: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._file = Rows(self.path)
        self._before = max((row["seconds"] for row in self._file.rows), default=0.0)

    def begin(self) -> None:
        """A piece of the run begins."""
        self._began, self._paused = self.now(), 0.0
        self._file.add({"piece": self.pieces + 1, "seconds": self._before})

    @property
    def seconds(self) -> float:
        """Of all pieces, without pauses."""
        return self._before + self.now() - self._began - self._paused

    @property
    def pieces(self) -> int:
        """How many times the run was begun or gone on with."""
        return sum("piece" in row for row in self._file.rows)

    def note(self, step: int) -> None:
        """A generator update is done; 0 for those of the assistant's warm-up."""
        self._file.add({"step": step, "seconds": self.seconds})

    def at(self, step: int) -> float:
        """The seconds at which an update was done, the last time that it was."""
        return next(float(row["seconds"]) for row in reversed(self._file.rows) if row.get("step") == step)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside does not count."""
        started = self.now()
        try:
            yield
        finally:
            self._paused += self.now() - started
