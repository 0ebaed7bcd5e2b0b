"""Errors of the disk as sentences: the file, the system's reason, and what to do before one goes on."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import RunError, first_line

AGAIN = "Run the same command again; what is done is kept."

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
FAILING = (errno.EIO, errno.ESTALE, errno.EFBIG)


def of_the_disk(error: OSError, folder: Path | None = None) -> bool:
    """Whether an error is the disk's, and not a network's or that of a file somebody named.

    Args:
        error: of any kind that Python has.
        folder: whatever happens to its files is the disk's as well.
    """
    if error.errno in (*FULL, *FAILING, errno.EROFS):
        return True
    if folder is None or not isinstance(error.filename, str):
        return False
    return folder.absolute() in (path := Path(error.filename).absolute(), *path.parents)


def reason_of(error: OSError) -> str:
    """The system's message, with the file it concerns."""
    if error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return error.strerror or first_line(error)


def way_on(error: OSError, then: str) -> str:
    """What to do first, and then.

    Args:
        error: the disk's.
        then: a sentence: "Run the same command again."
    """
    first = "Free some space first. " if error.errno in FULL else ""
    if error.errno in FORBIDDEN:
        first = "Make it writable first. "
    return f"{first}{then}"


@contextmanager
def explained(then: str) -> Iterator[None]:
    """An error of the disk inside this context becomes a sentence.

    Args:
        then: what to do once there is room again, as in `way_on`.

    Raises:
        RunError: the disk is full, read-only or failing.
    """
    try:
        yield
    except OSError as error:
        if not of_the_disk(error):
            raise
        raise RunError(f"{reason_of(error)}. {way_on(error, then)}") from error
