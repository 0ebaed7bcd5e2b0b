"""Rows of numbers in files without a name: memory that does not grow with them, and nothing that is left behind."""

from __future__ import annotations

import os
import tempfile
from typing import IO, Any, cast

import numpy as np

from ..errors import RequestError
from .paths import cache_place

BLOCK = 2**14
"""Rows up to this number stay in memory."""
HELD_BYTES = 2**22
"""Contents up to this size stay in memory."""


def scratch_file() -> IO[bytes]:
    """A file that no folder lists: its space is free again when it is closed, however the process ends.

    It lies in memory while it is small, then below `$DIPP_CACHE/scratch` (`~/.cache/dipp/scratch`), because a folder
    for temporary files may itself be memory; where nothing can be written there, among the temporary files.
    """
    folder = cache_place("scratch")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except (OSError, RuntimeError):  # no such place, or no home
        usable = False
    return cast("IO[bytes]", tempfile.SpooledTemporaryFile(HELD_BYTES, dir=str(folder) if usable else None))


class Rows:
    """Rows of one dtype that are appended, then read as one array: mapped from a file where there are many.

    Args:
        dtype: of a row; it may have fields.
    """

    def __init__(self, dtype: Any):
        self._block = np.empty(BLOCK, dtype)
        self._filled, self._written = 0, 0
        self._file: Any = None

    def append(self, row: Any) -> None:
        """Add one; a tuple where the dtype has fields.

        Raises:
            RequestError: the disk is full.
        """
        if self._filled == BLOCK:
            self._write()
        self._block[self._filled] = row
        self._filled += 1

    def extend(self, rows: np.ndarray) -> None:
        """Add several.

        Raises:
            RequestError: the disk is full.
        """
        while len(rows):
            if self._filled == BLOCK:
                self._write()
            part = rows[: BLOCK - self._filled]
            self._block[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            rows = rows[len(part) :]

    def array(self) -> np.ndarray:
        """All rows. None can be added afterwards.

        Raises:
            RequestError: the disk is full.
        """
        if self._file is None:
            return self._block[: self._filled]
        self._write()
        mapped = np.memmap(self._file, self._block.dtype, "r+", shape=(self._written,))
        return cast(np.ndarray, mapped.view(np.ndarray))

    def _write(self) -> None:
        """Into the file, by writing: a full disk is then an error, where a mapping would end the process."""
        try:
            if self._file is None:
                self._file = scratch_file()
                self._file.rollover()
            self._file.write(self._block[: self._filled].tobytes())
            self._file.flush()
        except OSError as error:
            raise RequestError(
                f"Cannot write a temporary file: {error.strerror}. Make room, or name another folder with DIPP_CACHE."
            ) from error
        self._written, self._filled = self._written + self._filled, 0
