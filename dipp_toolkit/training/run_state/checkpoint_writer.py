"""Checkpoints written while the training goes on: the state is copied first, the disk is waited for in a thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...distributed import Processes
from .checkpoint import Snapshot, prepare
from .host_copies import HostCopies


def nothing() -> None:
    """The default of callbacks: do nothing."""


@dataclass
class CheckpointWriter:
    """Writes one checkpoint at a time; where the disk is slower than the training, the training waits.

    Attributes:
        processes: those that write together.
        after: done in the thread once the checkpoint is whole.
        copies: makes copies of states.
    """

    processes: Processes = field(default_factory=Processes)
    after: Callable[[], None] = nothing
    copies: HostCopies = field(default_factory=HostCopies)
    _pool: ThreadPoolExecutor | None = field(default=None, repr=False)
    _pending: tuple[Path, Future[None]] | None = field(default=None, repr=False)
    _copying: bool = field(default=False, repr=False)
    """Whether the device may still be copying, and has not been told to wait before it changes the state."""

    def submit(self, folder: Path, state: dict[str, Any], before: Callable[[], None] = nothing) -> list[Path]:
        """Copy a state and begin to write it.

        Args:
            folder: the checkpoint's final place.
            state: may change once `before_change` has been called.
            before: called in the thread before anything is written.

        Returns:
            The checkpoint before it, where that was still being written: it is whole now.

        Raises:
            OSError: that one could not be written, or this one's place cannot be made.
            TypeError: the state holds something that a checkpoint cannot.
        """
        finished = self.wait()
        snapshot = Snapshot.of(state, self.processes, self.copies)
        self._copying = True
        if self.processes.main:
            prepare(folder)
        if snapshot.shards:
            self.processes.wait()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending = (folder, self._pool.submit(self._write, snapshot, folder, before))
        return finished

    def before_change(self) -> None:
        """Have the device finish the copies before what it is given next; the host does not wait."""
        if self._copying:
            self.copies.before_change()
            self._copying = False

    def _write(self, snapshot: Snapshot, folder: Path, before: Callable[[], None]) -> None:
        if not snapshot.mine:
            snapshot.copies.wait()
            return
        if self.processes.main:
            before()
        snapshot.write(folder)
        if self.processes.main:
            self.after()

    def done(self) -> list[Path]:
        """The checkpoint that has become whole since it was last asked; none where one is still being written.

        Raises:
            OSError: it could not be written.
        """
        return self.wait() if self._pending is not None and self._pending[1].done() else []

    def wait(self) -> list[Path]:
        """Until nothing is being written; the checkpoint that was, if any.

        Raises:
            OSError: it could not be written.
        """
        if self._pending is None:
            return []
        (folder, future), self._pending = self._pending, None
        future.result()
        return [folder]

    def close(self) -> None:
        """Wait, whatever comes of it, and end the thread."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None
