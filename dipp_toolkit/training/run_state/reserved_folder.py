"""The folder that a run takes for itself: made before anything is loaded, and gone again where nothing came of it.

Names of its own are taken by creating them, so two runs that begin together get two folders. While the run lives, no
other process works there. A run that fails before its first step leaves nothing that would be in the next one's way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ...config import TrainConfig
from ...distributed import Processes
from ...errors import DippError, Interrupted, RequestError
from ...utils.disk_errors import FULL, way_on
from ...utils.folder_lock import FolderLock, locked
from .run_folder import RunFolder, choose_folder, remove_start

MOST_TRIES = 1000
"""Names, or the same one again, that other runs take away at the last moment."""


@dataclass
class _Folder:
    """A folder and those above it, as far as this process made them; they go again while they are empty.

    Attributes:
        path: the folder.
        made: each folder that was made, from the outermost on, as it was then: its name may become another's.
    """

    path: Path
    made: dict[Path, os.stat_result] = field(default_factory=dict)

    def make(self, fresh: bool) -> None:
        """Make the folder.

        Args:
            fresh: it must not be there yet.

        Raises:
            OSError: it is, or it cannot be made.
        """
        for folder in reversed(self.path.parents):
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                self.made[folder] = folder.stat()
        if fresh or not self.path.is_dir():
            self.path.mkdir()
            self.made[self.path] = self.path.stat()

    def is_made(self, path: Path) -> bool:
        """Whether a folder is one that this process made."""
        try:
            return path in self.made and os.path.samestat(self.made[path], path.stat())
        except OSError:
            return False

    def remove(self) -> None:
        """Remove what was made, as far as it is empty."""
        for folder in reversed(self.made):
            if self.is_made(folder):
                with suppress(OSError):  # it is not empty any more
                    folder.rmdir()


@contextmanager
def own_folder(path: Path, processes: Processes) -> Iterator[None]:
    """Be the one launch at work in a folder. It is made where it is missing, and goes again where it stays empty.

    Args:
        path: the folder.
        processes: of the launch; the first one holds the lock for all.

    Raises:
        RequestError: another process is at work there, or the folder cannot be written.
    """
    with ExitStack() as stack:
        failure: DippError | Interrupted | None = None
        if processes.main:
            folder = _Folder(path)
            stack.callback(folder.remove)
            try:
                folder.make(fresh=False)
                stack.enter_context(locked(path))
            except OSError as error:
                failure = RequestError(f"Cannot write the folder {path}: {error.strerror or error}.")
            except (DippError, Interrupted) as error:
                failure = error
        processes.agree(failure)
        yield


@contextmanager
def taken_folder(config: TrainConfig) -> Iterator[tuple[RunFolder, FolderLock]]:
    """A run's folder and the lock on it, for the time of the run.

    Args:
        config: `out` and `resume` say which folder; without `out` it is a fresh one below `runs/`.

    Raises:
        RequestError: the folder cannot be used, see `choose_folder`, or another process is at work in it.
    """
    with ExitStack() as stack:
        folder, lock = _take(config, stack)
        about = folder.path.stat()
        try:
            yield RunFolder(folder.path, (about.st_dev, about.st_ino)), lock
        except Exception:  # an interruption is none, and says how to go on in the folder
            if folder.is_made(folder.path):
                remove_start(folder.path)
            raise


def _take(config: TrainConfig, stack: ExitStack) -> tuple[_Folder, FolderLock]:
    """Make the folder where it is missing, and lock it; both end with the stack.

    Raises:
        RequestError: see `taken_folder`.
    """
    fresh = config.out is None
    for _ in range(MOST_TRIES):
        folder = _Folder(choose_folder(config).path)
        try:
            folder.make(fresh)
        except (FileExistsError, FileNotFoundError):  # another run was quicker, to make it or to remove the one above
            continue
        except OSError as error:
            folder.remove()
            way = f" {way_on(error, 'Run the same command again.')}" if error.errno in FULL else ""
            raise RequestError(f"Cannot write the run folder {folder.path}: {error.strerror or error}.{way}") from error
        with ExitStack() as kept:
            kept.callback(folder.remove)
            try:
                lock = kept.enter_context(locked(folder.path))
                # Again, now that no other process works there.
                choose_folder(config.model_copy(update={"out": folder.path}))
            except RequestError:
                if fresh or not folder.path.is_dir():
                    continue
                raise
            stack.enter_context(kept.pop_all())
            return folder, lock
    raise RequestError(f"Cannot make the run folder {folder.path}: other processes keep removing it.")
