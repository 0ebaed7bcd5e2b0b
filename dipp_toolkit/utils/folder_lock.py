"""One process at a time is at work in a folder: a lock that ends with the process that holds it, however that ends.

It is a lock of the system's (`flock`) on the file `.lock` in the folder. Readers ask for none. The file is removed with
the lock; what a kill leaves of it is not locked. Over NFS the server keeps the lock, so machines that share a
folder keep each other out; one that loses the server for longer than its lease may lose the lock with it. On a file
system without locks the work goes on without one, and `FolderLock.held` is False.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import RequestError
from .messages import shown
from .paths import unlinked

LOCK = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
"""What a file system without locks says."""
LONGEST = 200

_open_here: set[int] = set()


def _let_go() -> None:
    """A forked worker may outlive its parent, and must not keep the parent's folders from others."""
    for descriptor in _open_here:
        os.close(descriptor)
    _open_here.clear()


os.register_at_fork(after_in_child=_let_go)


@dataclass(frozen=True)
class FolderLock:
    """A folder that is this process's to write in.

    Attributes:
        folder: it.
        held: whether the file system has locks; where it has none, other processes are not kept out.
    """

    folder: Path
    held: bool


@contextmanager
def locked(folder: Path) -> Iterator[FolderLock]:
    """Be the one process that is at work in a folder.

    Args:
        folder: is there already.

    Raises:
        RequestError: another process is at work there, or the folder cannot be written.
    """
    path, owner = folder / LOCK, os.getpid()
    try:
        descriptor, held = _locked(path)
    except BlockingIOError:
        raise RequestError(
            f"Another process is at work in the folder {folder}{_owner(path)}. Wait until it ends, or choose another "
            "folder with --out."
        ) from None
    except OSError as error:
        raise RequestError(f"Cannot write the folder {folder}: {error.strerror or error}.") from error
    _open_here.add(descriptor)
    try:
        yield FolderLock(folder, held)
    finally:
        if os.getpid() == owner:
            if _is_at(path, descriptor):
                path.unlink(missing_ok=True)
            _open_here.discard(descriptor)
            os.close(descriptor)


def _locked(path: Path) -> tuple[int, bool]:
    """An open lock file, and whether it is locked.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: there can be no such file.
    """
    while True:
        descriptor = os.open(unlinked(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            held = _flocked(descriptor)
            if _is_at(path, descriptor):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {platform.node()}"[:LONGEST].encode())
                return descriptor, held
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the one who held it has just removed it


def _flocked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one of this name."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except OSError:
        return False


def _owner(path: Path) -> str:
    """Who holds a lock, in brackets, where that can be read."""
    try:
        text = path.read_bytes()[:LONGEST].decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return f" ({shown(text)})" if text else ""
