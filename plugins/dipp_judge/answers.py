"""Answers that were paid for once: an SQLite file of them by question, which survives a kill at any moment.

Several processes and threads may use one file. An answer is in it as soon as it came, so that what is asked again after
a crash is not asked of the server again, and a run can be done over without the server. The file counts the calls that
were ever made for it, so that a budget holds over all runs that share it, and knows who answered, so that answers of
two models do not mix.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dipp_toolkit.errors import RequestError, RunError

from .reading import Answer

VERSION = 1
PATIENCE = 60.0
"""Seconds that a look or a write waits for other processes."""
AT_ONCE = 500
"""Keys in one look-up: SQLite has a limit on parameters."""
TABLES = (
    "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS models (asked TEXT PRIMARY KEY, answered TEXT NOT NULL, calls INTEGER NOT NULL)",
)


class Answers:
    """The answers in a file.

    Args:
        path: of the file; made where there is none.

    Raises:
        RequestError: it cannot be opened, or is no such file.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            self._file.execute("BEGIN IMMEDIATE")  # one process makes the tables, and the others wait for it
            (version,) = self._file.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise RequestError(f"{path} holds answers in a form that this version of the toolkit does not know.")
            for table in TABLES:
                self._file.execute(table)
            self._file.execute(f"PRAGMA user_version={VERSION}")
            self._file.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise RequestError(f"The answers of judges cannot be kept in {path}: {reason.rstrip('.')}.") from error

    @contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        """The file, for one thread at a time.

        Raises:
            RunError: it cannot be read or written.
        """
        with self._lock:
            try:
                yield self._file
            except (sqlite3.Error, ValueError, TypeError) as error:
                reason = str(error).rstrip(".")
                raise RunError(f"The judge's answers in {self.path} cannot be read or written: {reason}.") from error

    def find(self, keys: Sequence[str]) -> dict[str, Answer]:
        """The answers that are there, by question.

        Raises:
            RunError: the file cannot be read.
        """
        found: dict[str, Answer] = {}
        with self._used() as file:
            for start in range(0, len(keys), AT_ONCE):
                some = keys[start : start + AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = file.execute(f"SELECT key, answer FROM answers WHERE key IN ({marks})", some)
                found |= {key: Answer(**json.loads(answer)) for key, answer in rows}
        return found

    def keep(self, key: str, asked: str, answer: Answer) -> tuple[str, Answer]:
        """Keep an answer; one that is there stays, as another process may have asked the same at the same time.

        Args:
            key: of the question.
            asked: the model that was asked.
            answer: to be kept.

        Returns:
            The model whose answers the file has, and the answer that it has. Where the model is another one than
            answered now, nothing is kept.

        Raises:
            RunError: it cannot be written.
        """
        with self._used() as file:
            if answer.model:
                file.execute("UPDATE models SET answered = ? WHERE asked = ? AND answered = ''", (answer.model, asked))
                row = file.execute("SELECT answered FROM models WHERE asked = ?", (asked,)).fetchone()
                if row is not None and row[0] not in ("", answer.model):
                    return str(row[0]), answer
            file.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, json.dumps(answer.as_json())))
            (kept,) = file.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
            return answer.model, Answer(**json.loads(kept))

    def calls(self, asked: str) -> int:
        """How many calls were ever made to a model for this file.

        Raises:
            RunError: the file cannot be read.
        """
        with self._used() as file:
            row = file.execute("SELECT calls FROM models WHERE asked = ?", (asked,)).fetchone()
        return 0 if row is None else int(row[0])

    def count_call(self, asked: str, budget: int) -> bool:
        """Count one more call to a model, whatever comes of it; False where the budget has none left.

        Args:
            asked: the model.
            budget: calls in all; 0 for no limit.

        Raises:
            RunError: it cannot be written.
        """
        with self._used() as file:
            file.execute("INSERT OR IGNORE INTO models VALUES (?, '', 0)", (asked,))
            one_more = "UPDATE models SET calls = calls + 1 WHERE asked = ? AND (? = 0 OR calls < ?)"
            return file.execute(one_more, (asked, budget, budget)).rowcount == 1

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()
