"""Does what is missing of the study, beside other processes, one cell after the other.

Processes with one folder to work in keep out of each other's way by a lock on the folder of each cell, which ends with
the process that holds it. Machines that share no folder are given shares instead.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fair_study.cells import Cell
from benchmarks.fair_study.records import Record, Records, of_basis
from benchmarks.fair_study.study import Stage
from dipp_toolkit.errors import RequestError
from dipp_toolkit.utils.folder_lock import locked

POLL = 15.0
"""Seconds until another process's row is looked for again."""


@dataclass(frozen=True)
class Share:
    """A machine's part of every stage.

    Attributes:
        number: of the machine, from 0.
        count: of machines.
    """

    number: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Share:
        """From `0/2`.

        Raises:
            RequestError: it is no such text.
        """
        number, _, count = text.partition("/")
        if number.isdecimal() and count.isdecimal() and int(number) < int(count):
            return cls(int(number), int(count))
        raise RequestError(
            f"A share is a number and a count, as 0/2 and 1/2, the number below the count; got '{text}'."
        )

    def of(self, stage: Stage) -> list[Cell]:
        """Its cells. They are the same whatever is done by now: a stage has all its cells until all are done."""
        return list(stage.cells[self.number :: self.count])


@dataclass
class Worker:
    """Does cells and appends their rows.

    Attributes:
        records: the file of rows.
        basis: of this world's rows.
        stages: what can be done now, from all rows.
        do: does a cell, in a folder of its own.
        folder: holds the cells' folders.
        share: of this machine.
        deadline: time, by `clock`, after which nothing more is begun.
        most: cells that are begun at most; None for no limit.
        keep: whether trained weights are kept.
        clock: gives seconds.
        sleep: waits for other processes.
    """

    records: Records
    basis: str
    stages: Callable[[list[Record]], list[Stage]]
    do: Callable[[Cell, str, Path], Record]
    folder: Path
    share: Share = Share()
    deadline: float | None = None
    most: int | None = None
    keep: bool = False
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def work(self) -> int:
        """Do what is missing until there is nothing, or the time is up; returns how many cells were done."""
        done = 0
        while not self._is_over(done):
            missing = self.missing()
            if not missing:
                break
            if any(self._did(cell) for cell in missing):
                done += 1
            elif self.missing():  # all of it is under way in other processes
                self.sleep(POLL)
        return done

    def _is_over(self, done: int) -> bool:
        late = self.deadline is not None and self.clock() >= self.deadline
        return late or (self.most is not None and done >= self.most)

    def missing(self) -> list[Cell]:
        """Cells of this share that can be done now and are not."""
        records = self.records.read()
        known = of_basis(records, self.basis)
        return [cell for stage in self.stages(records) for cell in self.share.of(stage) if cell.id not in known]

    def _did(self, cell: Cell) -> bool:
        """Do a cell, unless another process is at it or has just done it."""
        own = self.folder / cell.id
        own.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(own))
            except RequestError:
                return False
            if cell.id in of_basis(self.records.read(), self.basis):
                return False
            print(cell.label, flush=True)
            self.records.append(self.do(cell, self.basis, own))
            if not self.keep:
                for place in [path for path in own.iterdir() if path.is_dir()]:
                    shutil.rmtree(place)
            return True
