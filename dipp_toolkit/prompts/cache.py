"""Prompts encoded once: embeddings and masks in one SQLite file an encoder, keyed by the text.

Below the cache's folder each encoder has its own, named after its configuration (which says what kind of encoder it is)
and a fingerprint of its weights (which tells a fine-tuned one from the original). The file there has a row a prompt. A
few hundred are written in one transaction, all or nothing, so that encoding that was cut off goes on where it stopped;
a row has a checksum, so that what a disk has changed is not read. Processes share the file under SQLite's locks, in the
mode of a rollback journal, which a network's folder can have as far as it locks files; WAL needs shared memory. With a
cache that holds every prompt, no text encoder is loaded, and none needs to be there.

Embeddings are kept in the text encoder's precision and without what is masked, and come back in float32, padded: the
bits that encoding gives. What says an image's size is no part of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..diffusion.condition import Condition
from ..errors import RequestError, first_line
from ..models.files.weight_files import PICKLE, weights_in
from ..models.text_encoders import PromptEncoder
from ..utils.content_digests import file_digest
from ..utils.device import sent
from ..utils.json_files import read_json
from ..utils.lazy_sequence import through
from ..utils.messages import shown
from ..utils.paths import cache_place
from .embeddings import KeptTensor, packed_rows, unpacked_row
from .read_ahead import ReadAhead

CHUNK = 256
TOGETHER = 64
"""Prompts that one query reads: so many packed rows are in memory at a time."""
READ = "digest, cut, lengths, tensors, checksum"
NAME = "prompts.sqlite"
FORMAT = 3
"""Counted up when files or embeddings change, so that caches of older versions are not found and never mistaken."""
SCHEMA = (
    "CREATE TABLE prompts (digest BLOB PRIMARY KEY, cut INTEGER NOT NULL, lengths TEXT NOT NULL,"
    " tensors BLOB NOT NULL, checksum INTEGER NOT NULL)"
)
PATIENCE = 600
"""Seconds to wait for another process's transaction."""
UNWRITABLE = ("CANTOPEN", "READONLY", "PERM", "IOERR", "PROTOCOL", "NOLFS", "FULL", "BUSY", "LOCKED", "AUTH", "NOMEM")
"""Errors of SQLite that do not say that the file is damaged or something else."""


def default_cache() -> Path:
    """`$DIPP_CACHE/prompts`, or `~/.cache/dipp/prompts`."""
    return cache_place("prompts")


def _configuration_key(encoder: PromptEncoder) -> str:
    parts: list[Any] = [FORMAT, type(encoder.family).__name__, str(encoder.dtype), encoder.settings]
    for name in encoder.names:
        config = read_json(encoder.folder / name / "config.json")
        parts.append({key: value for key, value in config.items() if not key.startswith(("_", "transformers_version"))})
    for folder in sorted(encoder.folder.glob("tokenizer*")):
        for file in sorted(folder.glob("*.json")):
            parts.append([folder.name, file.name, hashlib.sha256(file.read_bytes()).hexdigest()])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _weights_key(encoder: PromptEncoder) -> str | None:
    digest = hashlib.sha256()
    for name in encoder.names:
        weights = weights_in(encoder.folder / name) or weights_in(encoder.folder / name, PICKLE)
        if weights is None:
            return None
        for file in weights.files:
            digest.update(f"{name} {file_digest(encoder.folder / name / file)}".encode())
    for folder in sorted(encoder.folder.glob("tokenizer*")):
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.suffix != ".json":
                digest.update(f"{folder.name} {path.name} {file_digest(path)}".encode())
    return digest.hexdigest()[:24]


def encoder_folder(cache: Path, encoder: PromptEncoder) -> Path:
    """The folder of this encoder's prompts.

    Raises:
        RequestError: the encoder's weights are not here and the cache holds prompts of several that they could be, or
            the cache or the encoder's configuration cannot be read.
    """
    base = cache / _configuration_key(encoder)
    try:
        weights = _weights_key(encoder)
    except OSError as error:
        raise RequestError(f"Cannot read the text encoders in {encoder.folder}: {error.strerror}.") from error
    if weights is not None:
        return base / weights
    try:
        folders = sorted(folder for folder in base.iterdir() if folder.is_dir()) if base.is_dir() else []
    except OSError as error:
        raise RequestError(f"Cannot read the prompt cache {base}: {error.strerror}.") from error
    if len(folders) > 1:
        raise RequestError(
            f"The prompt cache {base} has prompts of {len(folders)} encoders of one configuration; which of them is "
            f"meant is unknown while the encoder's weights are missing in {encoder.folder}. Fetch the weights."
        )
    return folders[0] if folders else base / "unknown"


def digest_of(prompt: str) -> bytes:
    """16 bytes that stand for a text."""
    return hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def count_distinct(prompts: Iterable[str]) -> int:
    """How many different texts there are, to about one in 2^64 of their pairs; none is held, and 8 bytes of each."""
    digests = (int.from_bytes(digest_of(prompt)[:8], "big") for prompt in prompts)
    return len(np.unique(np.fromiter(digests, np.uint64)))


@dataclass
class PromptCache:
    """The encoded prompts of one encoder. Several processes and threads may read and write it at once.

    `prompt in cache` says whether one is there.

    Attributes:
        folder: holds the file; where it is missing, the cache is empty, and it is made for the first prompt.

    Raises:
        RequestError: there is a file and it is not a prompt cache.
    """

    folder: Path
    _connection: sqlite3.Connection | None = field(default=None, init=False, repr=False)
    _opened: tuple[int, int, int] | None = field(default=None, init=False, repr=False)
    _lock: Any = field(default_factory=threading.RLock, init=False, repr=False)

    def __post_init__(self) -> None:
        with self._database():
            pass

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self.folder / NAME

    def __contains__(self, prompt: object) -> bool:
        return isinstance(prompt, str) and not self.missing([prompt])

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """Those that are not there, each once, in order.

        Raises:
            RequestError: the cache cannot be read.
        """
        return [prompt for prompt, cut in self._cut(prompts).items() if cut is None]

    def add(self, condition: Condition, dtype: torch.dtype = torch.float32, cut: bool = False) -> None:
        """Write prompts, all or none; those that are there stay as they are.

        Args:
            condition: its rows.
            dtype: that floats are kept in where it loses nothing.
            cut: whether the prompts were longer than what was read of them.

        Raises:
            RequestError: the folder cannot be written.
        """
        rows = []
        for prompt, (lengths, tensors) in zip(condition.prompts, packed_rows(condition, dtype), strict=True):
            digest = digest_of(prompt)
            rows.append((digest, int(cut), lengths, tensors, _checksum(digest, int(cut), lengths, tensors)))
        with self._database(write=True) as database, _transaction(database):
            database.executemany("INSERT OR IGNORE INTO prompts VALUES (?, ?, ?, ?, ?)", rows)

    def encode(self, encoder: PromptEncoder, prompts: Iterable[str], chunk: int = CHUNK, progress: Any = None) -> int:
        """Encode and write the prompts that are missing; returns how many were. One chunk is in memory at a time.

        Args:
            encoder: loaded if a prompt is missing.
            prompts: any number, repetitions allowed.
            chunk: prompts that are encoded and written together.
            progress: called after each chunk with the number of prompts that have been looked at and of those that
                were encoded.

        Raises:
            RequestError: the encoder cannot be loaded, a prompt is too long, or the cache cannot be used.
        """
        waiting: dict[str, None] = {}
        rest = iter(prompts)
        seen, encoded = 0, 0
        while batch := list(islice(rest, chunk)):
            seen += len(batch)
            flags = self._cut(batch)
            waiting |= dict.fromkeys(prompt for prompt, cut in flags.items() if cut is None)
            encoder.check_cut([prompt for prompt, cut in flags.items() if cut])
            if len(waiting) >= chunk:
                encoded += self._encode(encoder, waiting, chunk)
                if progress is not None:
                    progress(seen, encoded)
        if waiting:
            encoded += self._encode(encoder, waiting, chunk)
            if progress is not None:
                progress(seen, encoded)
        return encoded

    def _encode(self, encoder: PromptEncoder, waiting: dict[str, None], chunk: int) -> int:
        """Encode and write the first of those that wait; returns how many."""
        part = list(islice(waiting, chunk))
        condition = encoder.encode(part)
        long = set(encoder.too_long(part)) if encoder.long_prompts == "cut" else set()
        for cut in (False, True):
            rows = [row for row, prompt in enumerate(part) if (prompt in long) == cut]
            if rows:
                self.add(condition[rows], encoder.dtype, cut)
        for prompt in part:
            del waiting[prompt]
        return len(part)

    def read(self, prompts: Sequence[str]) -> Condition:
        """The encoded prompts, in the order given.

        Raises:
            RequestError: one is not in the cache, or the file is damaged.
        """
        texts, tensors = tuple(prompts), dict[str, torch.Tensor]()
        for start in range(0, len(texts), TOGETHER):
            part = texts[start : start + TOGETHER]
            for index, (prompt, row) in enumerate(zip(part, self._rows(READ, part), strict=True), start):
                if row is None:
                    raise RequestError(
                        f"The prompt '{shown(prompt)}' is not in the prompt cache {self.folder}. Encode it with: dipp "
                        "prompts encode."
                    )
                kept = self._kept(*row)
                if not tensors:
                    tensors = {
                        name: torch.empty((len(texts), *value.shape), dtype=value.dtype) for name, value in kept.items()
                    }
                if {name: value.shape[1:] for name, value in tensors.items()} != {
                    name: value.shape for name, value in kept.items()
                }:
                    raise RequestError(
                        f"The prompt cache file {self.path} has other tensors for the prompt '{shown(prompt)}' than "
                        "for others. Delete the file; its prompts are encoded again."
                    )
                for name, value in kept.items():
                    value.fill(tensors[name][index])
        return Condition(texts, tensors)

    def _rows(self, columns: str, prompts: Sequence[str]) -> list[Any]:
        """These columns of each prompt's row, None where there is none; at most `TOGETHER` prompts."""
        digests = [digest_of(prompt) for prompt in prompts]
        wanted = tuple(dict.fromkeys(digests))
        query = f"SELECT {columns} FROM prompts WHERE digest IN ({', '.join('?' * len(wanted))})"
        with self._database() as database:
            found = {} if database is None else {row[0]: row for row in database.execute(query, wanted)}
        return [found.get(digest) for digest in digests]

    def _kept(self, digest: bytes, cut: Any, lengths: Any, tensors: Any, checksum: Any) -> dict[str, KeptTensor]:
        try:
            if checksum != _checksum(digest, cut, lengths, tensors):
                raise ValueError("a checksum does not match")
            return unpacked_row(lengths, tensors)
        except Exception as error:  # JSON's, safetensors', torch's, or of another type in the file
            raise self._damaged(first_line(error)) from error

    def _cut(self, prompts: Sequence[str]) -> dict[str, bool | None]:
        """Whether each was cut; None of one that is not there."""
        wanted = list(dict.fromkeys(prompts))
        parts = (wanted[start : start + TOGETHER] for start in range(0, len(wanted), TOGETHER))
        rows = chain.from_iterable(self._rows("digest, cut", part) for part in parts)
        return {prompt: None if row is None else bool(row[1]) for prompt, row in zip(wanted, rows, strict=True)}

    def _damaged(self, reason: object) -> RequestError:
        return RequestError(
            f"The prompt cache file {self.path} is damaged or is not a prompt cache ({reason}). Delete it; its prompts "
            "are encoded again."
        )

    @contextmanager
    def _database(self, write: bool = False) -> Iterator[Any]:
        """The connection, None where there is no file and none is to be made; errors as sentences."""
        what = "write" if write else "read"
        with self._lock:
            try:
                if write:
                    self.folder.mkdir(parents=True, exist_ok=True)
                yield self._connected(write)
            except OSError as error:
                reason = error.strerror or error
                raise RequestError(f"Cannot {what} the prompt cache {self.folder}: {reason}.") from error
            except sqlite3.Error as error:
                kind = getattr(error, "sqlite_errorname", "").split("_")
                if len(kind) > 1 and kind[1] in UNWRITABLE:
                    raise RequestError(f"Cannot {what} the prompt cache {self.folder}: {error}.") from error
                raise self._damaged(error) from error

    def _connected(self, write: bool) -> sqlite3.Connection | None:
        """This process's connection to the file that is there now: none is used across a fork."""
        there = self._identity()
        if there is None or there != self._opened:
            if self._connection is not None and self._opened is not None and self._opened[0] == os.getpid():
                self._connection.close()
            self._connection = None
        if self._connection is None and (there is not None or write):
            self._connection = self._open()
            self._opened = self._identity()
        return self._connection

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            about = self.path.stat(follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return os.getpid(), about.st_dev, about.st_ino

    def _open(self) -> sqlite3.Connection:
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_file()):
            raise self._damaged("it is a link or not a file")
        database = sqlite3.connect(self.path, PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            for setting in ("trusted_schema = OFF", "cell_size_check = ON"):
                database.execute(f"PRAGMA {setting}")
            if not _schema(database):
                with _transaction(database):
                    if not _schema(database):  # another process may have been faster
                        database.execute(SCHEMA)
            if _schema(database) != [SCHEMA]:
                raise self._damaged("it is a database of something else")
        except BaseException:
            database.close()
            raise
        return database


def _checksum(digest: bytes, cut: int, lengths: str, tensors: bytes) -> int:
    return zlib.crc32(tensors, zlib.crc32(f"{digest.hex()} {cut} {lengths}".encode()))


def _schema(database: sqlite3.Connection) -> list[str]:
    return [sql for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]


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


def chosen_texts(prompts: Sequence[str], rows: Sequence[int] | slice) -> list[str]:
    """The prompts of a batch."""
    return list(prompts[rows] if isinstance(rows, slice) else through(prompts, (int(row) for row in rows)))


@dataclass(frozen=True)
class CachedConditions:
    """Encoded prompts that stay on disk until a batch needs them; indexed like a `Condition`.

    Attributes:
        prompts: the texts, one a row; they may be read from their file themselves.
        cache: holds each of them.
        device: batches are moved there.
        complete: adds what is no part of the cache, such as an image's size.
    """

    prompts: Sequence[str]
    cache: PromptCache
    device: torch.device
    complete: Callable[[Condition], Condition] | None = None
    _ahead: ReadAhead = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ahead", ReadAhead(self._read))

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, rows: Sequence[int] | slice) -> Condition:
        condition = self._ahead.take(range(len(self))[rows] if isinstance(rows, slice) else rows)
        sent_there = {name: sent(tensor, self.device) for name, tensor in condition.tensors.items()}
        return Condition(condition.prompts, sent_there)

    def expect(self, batches: Sequence[Sequence[int]]) -> None:
        """Read these batches ahead: they are asked for next, most likely."""
        self._ahead.expect(batches)

    def _read(self, rows: Sequence[int]) -> Condition:
        """A batch in the host's memory, pinned where a GPU fetches it from there."""
        condition = self.cache.read(chosen_texts(self.prompts, rows))
        condition = condition if self.complete is None else self.complete(condition)
        if self.device.type != "cuda":
            return condition
        return Condition(condition.prompts, {name: tensor.pin_memory() for name, tensor in condition.tensors.items()})
