"""Digests of whole files and folders; large files are read once, and again when anything about them has changed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from .paths import cache_place

LARGE = 2**20
"""Bytes from which a digest is remembered."""
SETTLED = 2.0
"""Seconds: a file that was written less long ago is not remembered, for a clock's tick may hide another change."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits.

    That of a large file is remembered in `$DIPP_CACHE/digests` under its place, size, inode and times.

    Raises:
        OSError: it cannot be read.
    """
    state = _state(path)
    if state[1] < LARGE:
        return sha256_of(path)
    note = _notes() / f"{hashlib.sha256(state[0].encode(errors='surrogateescape')).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, RecursionError):
        record = json.loads(note.read_text(encoding="utf-8"))
        if isinstance(record, dict) and record.get("state") == state and isinstance(record.get("digest"), str):
            return str(record["digest"])
    digest = sha256_of(path)
    if _state(path) == state and time.time() - max(state[3:]) / 1e9 > SETTLED:
        with suppress(OSError):  # a cache that cannot be written only costs time
            note.parent.mkdir(parents=True, exist_ok=True)
            beside = note.with_suffix(f".{os.getpid()}.partial")
            beside.write_text(json.dumps({"state": state, "digest": digest}), encoding="utf-8")
            beside.replace(note)
    return digest


def folder_digest(folder: Path) -> str:
    """SHA-256 of the names and bytes of all files below a folder, 64 hexadecimal digits.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
        name = path.relative_to(folder).as_posix().encode(errors="surrogateescape")
        digest.update(b"%d %s %s\n" % (len(name), name, file_digest(path).encode()))
    return digest.hexdigest()


def path_digest(path: Path) -> str | None:
    """The digest of a file or a folder; None where there is neither, or it cannot be read."""
    try:
        return folder_digest(path) if path.is_dir() else file_digest(path) if path.is_file() else None
    except OSError:
        return None


def _notes() -> Path:
    return cache_place("digests")


def _state(path: Path) -> list[Any]:
    status = path.stat()
    return [os.path.realpath(path), status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
