"""Lines of a text file by their place in it: read from the beginning, or from anywhere."""

from __future__ import annotations

import codecs
import os
import zlib

LEAST, MOST = 2**12, 2**18
"""Bytes that are read at once: few after a jump, more and more while the lines are read in order."""


class Lines:
    r"""The lines of an open file as texts, their ends (`\n`, `\r\n` or `\r`) included.

    The file's own position is neither used nor moved, so that threads and processes can share it.

    Args:
        file: descriptor of a regular file, UTF-8, with or without a byte order mark.

    Attributes:
        count: lines read so far.
        start: where the record that was marked begins.
        check: CRC-32 of what was read of that record, without the lines' ends.
        feeds_alone: whether a carriage return ends no line, as in JSON lines, where it is a space.
    """

    def __init__(self, file: int):
        self.file = file
        self.count, self.start, self.check = 0, 0, 0
        self.feeds_alone = False
        self._block, self._at, self._ahead, self._size, self._ended = b"", 0, 0, LEAST, False
        self.go_to(len(codecs.BOM_UTF8) if os.pread(file, 3, 0) == codecs.BOM_UTF8 else 0)

    @property
    def position(self) -> int:
        """Where the next line begins."""
        return self._ahead - len(self._block) + self._at

    def go_to(self, position: int) -> None:
        """Read on from another line's beginning."""
        at = position - (self._ahead - len(self._block))
        if 0 <= at <= len(self._block):
            self._at = at
        else:
            self._block, self._at, self._ahead, self._size, self._ended = b"", 0, position, LEAST, False

    def mark(self) -> None:
        """A record begins here."""
        self.start, self.check = self.position, 0

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        while not (end := self._end()):
            if self._ended:
                if self._at == len(self._block):
                    raise StopIteration
                end = len(self._block)
                break
            self._read_on()
        line = self._block[self._at : end]
        self._at = end
        self.count += 1
        self.check = zlib.crc32(line.rstrip(b"\r\n"), self.check)
        return line.decode()

    def _end(self) -> int:
        """Where in the block the next line ends; 0 where that is not known yet."""
        feed = self._block.find(b"\n", self._at)
        if self.feeds_alone:
            return feed + 1
        carriage = self._block.find(b"\r", self._at, len(self._block) if feed < 0 else feed)
        if carriage < 0 or carriage + 1 == feed:
            return feed + 1
        if carriage + 1 == len(self._block) and not self._ended:
            return 0
        return carriage + 1

    def _read_on(self) -> None:
        rest = self._block[self._at :]
        size = max(self._size, len(rest))  # a line of any length is put together in few steps
        more = os.pread(self.file, size, self._ahead)
        self._block, self._at, self._ended = rest + more, 0, not more
        self._ahead += len(more)
        self._size = min(2 * self._size, MOST)
