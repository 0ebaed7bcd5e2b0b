"""Stdout and stderr that take whatever is written: nobody who has stopped reading ends the work.

Behind them may be `head`, a `tee` that was killed, a terminal that was closed, a full disk, or a console that knows
fewer characters. What is done goes on and what can be shown is shown; characters that cannot are replaced.
"""

from __future__ import annotations

import codecs
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ECONNRESET, errno.ENXIO)
"""What a stream says once nobody reads it any more."""
REPLACE = "dipp-replace"
"""The name of `_replaced` among Python's ways with characters that an encoding lacks."""
NEAREST = {"\N{MINUS SIGN}": "-", "\N{MULTIPLICATION SIGN}": "x", "\N{EN DASH}": "-", "\N{NO-BREAK SPACE}": " "}
"""What stands for a character of ours that a console lacks: without its sign a number would be another."""


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(NEAREST.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


codecs.register_error(REPLACE, _replaced)


class Tolerant:
    """A stream that does not fail, of text or, as the `buffer` of one, of bytes.

    Args:
        stream: where it writes.
    """

    def __init__(self, stream: Any):
        self._stream = stream
        self._lost: OSError | None = None
        inner = getattr(stream, "buffer", None)
        self.buffer = None if inner is None else Tolerant(inner)
        # An encoding error after the work is done would be as bad; the C locale has another way already.
        if getattr(stream, "errors", None) in ("strict", "backslashreplace") and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=REPLACE)

    @property
    def lost(self) -> OSError | None:
        """Why something that was written did not arrive, where somebody would have read it; None otherwise."""
        return self._lost if self._lost is not None or self.buffer is None else self.buffer.lost

    def write(self, text: Any) -> int:
        """Write what can be."""
        try:
            return int(self._stream.write(text))
        except OSError as error:
            self._note(error)
            return len(text)

    def writelines(self, lines: Iterable[Any]) -> None:
        """Write what can be of each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Have what was written with the reader, if there is one."""
        try:
            self._stream.flush()
        except OSError as error:
            self._note(error)

    def _note(self, error: OSError) -> None:
        if error.errno in GONE:
            self.close_down()
        else:  # a full disk, which may have room again for the next line
            self._lost = error

    def close_down(self) -> None:
        """Send all that is written from now on, by anybody in this process, to where nobody reads.

        Python empties its streams as it ends, and would fail over what the reader never took.
        """
        with suppress(OSError, ValueError):  # a stream of Python's own, without a number
            number = self._stream.fileno()
            nobody = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nobody, number)
            os.close(nobody)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def tolerant() -> Iterator[Tolerant]:
    """Stdout and stderr are tolerant inside this context, which gives stdout; one that is closed takes everything."""
    before = sys.stdout, sys.stderr
    with Path(os.devnull).open("w", encoding="utf-8") as nobody:
        sys.stdout = out = Tolerant(before[0] or nobody)  # type: ignore[assignment]
        sys.stderr = err = Tolerant(before[1] or nobody)  # type: ignore[assignment]
        try:
            yield out
        finally:
            for stream in (out, err):
                stream.flush()
                if stream.lost is not None:
                    stream.close_down()
            sys.stdout, sys.stderr = before
