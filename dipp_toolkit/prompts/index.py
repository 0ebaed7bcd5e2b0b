"""Where each prompt stands in a folder of chunks: an SQLite file that takes no memory and can always be made again.

The chunks are the truth, and the index only remembers them. What it does not know is read from the chunks when the
folder is opened. An index that is no such file, is damaged, or remembers chunks that have changed or gone is made anew.
Every write is a transaction under SQLite's lock on the file, so that processes can share a folder, and one that is
killed leaves nothing half done. Where the folder cannot be written, the index is a temporary one of this process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ..errors import RequestError
from .chunks import ENDING, open_chunk

NAME = "index.sqlite"
SCHEMA = (
    "CREATE TABLE chunks (chunk INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER, changed INTEGER)",
    "CREATE TABLE places (digest BLOB PRIMARY KEY, chunk INTEGER, row INTEGER) WITHOUT ROWID",
)
PATIENCE = 600
"""Seconds to wait for another process's transaction: it may be reading a large folder for the first time."""

UNUSABLE = ("SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_SCHEMA", "SQLITE_ERROR", "SQLITE_FORMAT", "SQLITE_MISMATCH")
"""What is said of a damaged or foreign index."""
UNWRITABLE = ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_IOERR", "SQLITE_PROTOCOL", "SQLITE_NOLFS")
"""What is said where no index can be kept."""

Done = TypeVar("Done")


class _Link(sqlite3.OperationalError):
    """There is a link in the index's place, which cannot be removed."""

    sqlite_errorname = "SQLITE_CANTOPEN"


class _Foreign(sqlite3.DatabaseError):
    """There is a database of something else."""

    sqlite_errorname = "SQLITE_NOTADB"


def digest_of(prompt: str) -> bytes:
    """16 bytes that stand for a text."""
    return hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class PromptIndex:
    """Chunk and row of every prompt in a folder.

    Args:
        folder: holds the chunks; where it is missing, it holds none.

    Raises:
        RequestError: a chunk is damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._owner: tuple[int, int, int] = (0, 0, 0)
        self._private = False
        if self._is_there():
            self._do(lambda _: None)

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self.folder / NAME

    def find(self, prompts: Sequence[str]) -> list[tuple[str, int] | None]:
        """Chunk and row of each; None of one that is not there.

        Raises:
            RequestError: the index cannot be used.
        """
        if self._connection is None and not self._is_there():
            return [None] * len(prompts)
        query = "SELECT name, row FROM places JOIN chunks USING (chunk) WHERE digest = ?"

        def found(database: sqlite3.Connection) -> list[tuple[str, int] | None]:
            rows = (database.execute(query, (digest_of(one),)).fetchone() for one in prompts)
            return [row if row is not None and type(row[1]) is int else None for row in rows]

        return self._do(found)

    def add(self, name: str, prompts: Sequence[str], publish: Callable[[], object]) -> None:
        """Let a chunk appear, and remember it, in one transaction.

        Args:
            name: of its file.
            prompts: row by row.
            publish: makes the file appear; it may be called again.

        Raises:
            OSError: of `publish`.
            RequestError: the index cannot be used. What appeared is found when the folder is opened again.
        """

        def added(database: sqlite3.Connection) -> None:
            with _transaction(database):
                publish()
                self._note(database, name, prompts)

        self._do(added)

    def renew(self) -> None:
        """Read all chunks again: the index was seen to be wrong.

        Raises:
            RequestError: a chunk is damaged, or the index cannot be used.
        """
        if self._is_there():
            with _read(self.folder):
                self._do(lambda database: self._remember(database, anew=True))

    def _note(self, database: sqlite3.Connection, name: str, prompts: Sequence[str]) -> None:
        about = (self.folder / name).stat()
        database.execute(
            "INSERT INTO chunks (name, size, changed) VALUES (?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET size = excluded.size, changed = excluded.changed",
            (name, about.st_size, about.st_mtime_ns),
        )
        (chunk,) = database.execute("SELECT chunk FROM chunks WHERE name = ?", (name,)).fetchone()
        rows = ((digest_of(one), chunk, row) for row, one in enumerate(prompts))
        database.executemany("INSERT OR IGNORE INTO places VALUES (?, ?, ?)", rows)

    def _compare(self, database: sqlite3.Connection) -> None:
        """Remember chunks that are not known; where a known one changed or is gone, start from nothing."""
        unknown, stale = self._differences(database)
        if unknown or stale:
            self._remember(database)

    def _remember(self, database: sqlite3.Connection, anew: bool = False) -> None:
        with _transaction(database):
            unknown, stale = self._differences(database)  # again: another process may have been here
            if anew or stale:
                database.execute("DELETE FROM places")
                database.execute("DELETE FROM chunks")
                unknown, _ = self._differences(database)
            for name in sorted(unknown):
                self._note(database, name, open_chunk(self.folder / name).prompts)

    def _differences(self, database: sqlite3.Connection) -> tuple[list[str], bool]:
        """Names of chunks that the index does not know, and whether one that it knows changed or is gone."""
        unknown, known, changed = [], 0, False
        for name, size, at in _chunks(self.folder):
            found = database.execute("SELECT size, changed FROM chunks WHERE name = ?", (name,)).fetchone()
            if found is None:
                unknown.append(name)
            else:
                known += 1
                changed = changed or found != (size, at)
        (remembered,) = database.execute("SELECT count(*) FROM chunks").fetchone()
        return unknown, changed or remembered != known

    def _is_there(self) -> bool:
        with _read(self.folder):
            return self.folder.is_dir()

    def _do(self, work: Callable[[sqlite3.Connection], Done]) -> Done:
        """Work with the index, made anew or kept elsewhere where it turns out to be unusable."""
        with self._lock:
            for tried in range(3):
                try:
                    with _read(self.folder):
                        database = self._connected()
                    return work(database)
                except sqlite3.Error as error:
                    kind = "_".join(getattr(error, "sqlite_errorname", UNUSABLE[0]).split("_")[:2])
                    if tried == 2 or self._private or kind not in UNUSABLE + UNWRITABLE:
                        raise RequestError(
                            f"The index {self.path} of the prompt cache cannot be used: {error}. Where no other "
                            "program uses it, delete it; it is made again."
                        ) from error
                    self._disconnect()
                    self._private = kind in UNWRITABLE or not self._replaced(anyway=tried == 1)
            raise AssertionError("unreachable")

    def _connected(self) -> sqlite3.Connection:
        """The connection of this process to this file: none is used across a fork, or to a file that was replaced."""
        if self._connection is None or self._owner != self._here():
            self._disconnect()
            database = _open("" if self._private else self.path)
            try:
                self._compare(database)
            except BaseException:
                database.close()
                raise
            self._connection, self._owner = database, self._here()
        return self._connection

    def _here(self) -> tuple[int, int, int]:
        if self._private:
            return os.getpid(), 0, 0
        try:
            about = self.path.stat()
        except OSError:
            return os.getpid(), 0, 0
        return os.getpid(), about.st_dev, about.st_ino

    def _disconnect(self) -> None:
        if self._connection is not None and self._owner[0] == os.getpid():
            self._connection.close()
        self._connection = None

    def _replaced(self, anyway: bool) -> bool:
        """Put an empty index in the place of one that is none; False where that fails.

        Args:
            anyway: even if it looks whole, as it does where another process has just replaced it.
        """
        try:
            place = os.open(self.folder, os.O_RDONLY)
            try:
                fcntl.flock(place, fcntl.LOCK_EX)
                with suppress(sqlite3.Error), closing(_open(self.path)) as database:
                    if not anyway and database.execute("PRAGMA quick_check").fetchall() == [("ok",)]:
                        return True
                for name in (NAME, f"{NAME}-journal", f"{NAME}-wal", f"{NAME}-shm"):
                    (self.folder / name).unlink(missing_ok=True)
                _open(self.path).close()
            finally:
                os.close(place)
        except (OSError, sqlite3.Error):
            return False
        return True


@contextmanager
def _read(folder: Path) -> Iterator[None]:
    """Where the folder cannot be looked into, a sentence says so."""
    try:
        yield
    except OSError as error:
        raise RequestError(f"Cannot read the prompt cache {folder}: {error.strerror or error}.") from error


def _chunks(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of each; no size of one that cannot be looked at."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(ENDING):
                try:
                    about = entry.stat()
                except OSError:
                    yield entry.name, -1, -1
                else:
                    yield entry.name, about.st_size, about.st_mtime_ns


def _open(path: Path | str) -> sqlite3.Connection:
    """A connection to an index; it is created where it is missing, and is temporary where the path is empty.

    Raises:
        sqlite3.Error: there is something else, or nothing can be there.
    """
    if isinstance(path, Path) and path.is_symlink():  # nothing is written to where it points
        try:
            path.unlink()
        except OSError as error:
            raise _Link(str(error)) from error
    database = sqlite3.connect(path, PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        # The index can be made again, so that nothing waits for the disk. Nothing in the file is run.
        for setting in ("trusted_schema = OFF", "cell_size_check = ON", "synchronous = OFF"):
            database.execute(f"PRAGMA {setting}")
        if not _schema(database):
            with _transaction(database):
                for statement in () if _schema(database) else SCHEMA:
                    database.execute(statement)
        if _schema(database) != set(SCHEMA):
            raise _Foreign("it is a database of something else")
    except BaseException:
        database.close()
        raise
    return database


def _schema(database: sqlite3.Connection) -> set[str]:
    return {sql for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; other processes write before or after."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # where SQLite has gone back by itself
            database.execute("ROLLBACK")
        raise
