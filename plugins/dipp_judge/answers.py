"""Answers that were paid for once: an SQLite file of them by question, which survives a kill at any moment.

Several processes may use one file. An answer is in it as soon as it came, so that what is asked again after a crash is
not asked of the server again, and a run can be done over without the server. The file counts the calls that were ever
made for it, so that a budget holds over all runs that share it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from dipp_toolkit.errors import RequestError, RunError

from .reading import Answer

VERSION = 1
PATIENCE = 60.0
"""Seconds that a write waits for other processes."""
AT_ONCE = 500
"""Keys in one look-up: SQLite has a limit on parameters."""
TABLES = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS calls (model TEXT PRIMARY KEY, made INTEGER NOT NULL);
"""


class Answers:
    """The answers in a file.

    Args:
        path: of the file; made where there is none.

    Raises:
        RequestError: it cannot be opened, or is no such file.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
            (version,) = self._file.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise RequestError(f"{path} holds answers in a form that this version of the toolkit does not know.")
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.executescript(TABLES)
            self._file.execute(f"PRAGMA user_version={VERSION}")
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise RequestError(f"The answers of judges cannot be kept in {path}: {reason.rstrip('.')}.") from error

    def find(self, keys: Sequence[str]) -> dict[str, Answer]:
        """The answers that are there, by question.

        Raises:
            RunError: the file cannot be read.
        """
        found: dict[str, Answer] = {}
        try:
            for start in range(0, len(keys), AT_ONCE):
                some = keys[start : start + AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = self._file.execute(f"SELECT key, answer FROM answers WHERE key IN ({marks})", some)
                found |= {key: Answer(**json.loads(answer)) for key, answer in rows}
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise RunError(f"The answers in {self.path} cannot be read: {str(error).rstrip('.')}.") from error
        return found

    def keep(self, key: str, answer: Answer) -> None:
        """Keep an answer; one that is there stays.

        Raises:
            RunError: it cannot be written.
        """
        self._write("INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, json.dumps(answer.as_json())))

    def calls(self, model: str) -> int:
        """How many calls were ever made to a model for this file."""
        row = self._file.execute("SELECT made FROM calls WHERE model = ?", (model,)).fetchone()
        return 0 if row is None else int(row[0])

    def count_call(self, model: str) -> None:
        """One more call is made to a model, whatever comes of it.

        Raises:
            RunError: it cannot be written.
        """
        self._write("INSERT INTO calls VALUES (?, 1) ON CONFLICT (model) DO UPDATE SET made = made + 1", (model,))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, statement: str, values: tuple[str, ...]) -> None:
        try:
            self._file.execute(statement, values)
        except sqlite3.Error as error:
            raise RunError(f"The answers of judges cannot be kept in {self.path}: {str(error).rstrip('.')}.") from error
