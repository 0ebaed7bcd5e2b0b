"""Batches of encoded prompts that a thread reads while the step before them runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from ..diffusion.condition import Condition

Read = Callable[[Sequence[int]], Condition]


@dataclass
class ReadAhead:
    """Reads what is expected next in a thread of its own; what was not expected is read when it is asked for.

    The batch that is asked for is the same either way, and so is an error: it is raised where the batch is asked for,
    and never where it is not. A thread ends with its batches, and no process waits for one as it ends.

    Attributes:
        read: gives the batch with these rows; called from several threads.
    """

    read: Read
    _waiting: dict[tuple[int, ...], Future[Condition]] = field(default_factory=dict, init=False, repr=False)

    def expect(self, batches: Sequence[Sequence[int]]) -> None:
        """Begin to read these batches, one after the other; others that were expected and not asked for are dropped."""
        before, self._waiting = self._waiting, {}
        begun: list[tuple[tuple[int, ...], Future[Condition]]] = []
        for rows in map(tuple, batches):
            if rows in before:
                self._waiting[rows] = before[rows]
            elif rows not in self._waiting:
                self._waiting[rows] = Future()
                begun.append((rows, self._waiting[rows]))
        if begun:
            threading.Thread(target=self._fill, args=(begun,), name="prompts read ahead", daemon=True).start()

    def take(self, rows: Sequence[int]) -> Condition:
        """The batch with these rows.

        Raises:
            RequestError: as `read` does.
        """
        waiting = self._waiting.pop(tuple(rows), None)
        return self.read(rows) if waiting is None else waiting.result()

    def _fill(self, begun: Sequence[tuple[tuple[int, ...], Future[Condition]]]) -> None:
        for rows, future in begun:
            try:
                future.set_result(self.read(rows))
            except BaseException as error:  # noqa: BLE001 -- raised again where the batch is asked for
                future.set_exception(error)
