"""The rows of the study, appended to a file that is committed: one whole line for everything that was done.

A row's key is a digest of its cell and of its basis, which is all that its numbers depend on beside the cell
(`basis.py`). Rows of another basis stay in the file and count for nothing. Several processes may append, and files of
several machines may be put together in any order: of rows with one key the first counts.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.fair_study.cells import Cell
from dipp_toolkit.utils.fingerprint import digest_of
from dipp_toolkit.utils.jsonl import read_lines


def key_of(cell: Cell, basis: str) -> str:
    """What a row is found by: changes with everything that its numbers depend on."""
    return digest_of([basis, cell.id])[:24]


@dataclass(frozen=True)
class Record:
    """A row.

    Attributes:
        key: see `key_of`.
        basis: digest of what its numbers depend on beside the cell.
        cell: what was done.
        numbers: what was measured, by name.
        per_prompt: the judge's mean over noises for each prompt, rounded to 2 decimals; empty where no difference
            prompt by prompt is asked for.
        machine: what it ran on.
    """

    key: str
    basis: str
    cell: Cell
    numbers: Mapping[str, Any]
    per_prompt: tuple[float, ...] = ()
    machine: str = ""

    @classmethod
    def made(
        cls, cell: Cell, basis: str, numbers: Mapping[str, Any], per_prompt: Sequence[float] = (), machine: str = ""
    ) -> Record:
        """The row of a cell that was done."""
        return cls(key_of(cell, basis), basis, cell, dict(numbers), tuple(per_prompt), machine)

    @classmethod
    def read(cls, line: str) -> Record:
        """A row from its line.

        Raises:
            ValueError: the line is not a whole row, or its key is not that of its cell and basis.
        """
        try:
            fields = json.loads(line)
            varied = fields["cell"].pop("varied")
            cell = Cell(**fields["cell"], varied=tuple(sorted(varied.items())))
            row = cls.made(cell, fields["basis"], fields["numbers"], fields["per_prompt"], fields["machine"])
            key = fields["key"]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it has no {error}") from error
        if key != row.key:
            raise ValueError("its key is not that of its cell and basis")
        return row

    @property
    def line(self) -> str:
        """The row as one line of JSON."""
        fields = asdict(self) | {"cell": asdict(self.cell) | {"varied": dict(self.cell.varied)}}
        return json.dumps(fields, allow_nan=False)


@lru_cache(maxsize=10_000)
def _read(line: str) -> Record:
    """`Record.read`; the file is read again before every cell."""
    return Record.read(line)


@dataclass(frozen=True)
class Records:
    """The file of rows.

    Attributes:
        path: of the file; it need not be there yet.
    """

    path: Path

    def read(self) -> list[Record]:
        """All rows, of each key the first. What is not a whole row is told of and left out: it is done again."""
        rows: dict[str, Record] = {}
        for number, line in read_lines(self.path):
            try:
                row = _read(line)
            except ValueError as error:
                print(
                    f"{self.path}, line {number}, is not a row of the study ({error}); it is left out.", file=sys.stderr
                )
                continue
            rows.setdefault(row.key, row)
        return list(rows.values())

    def append(self, record: Record) -> None:
        """Add a row: whole, on the disk when this returns, and on a line of its own whatever a kill left before it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(f"{record.line}\n".encode())
            file.flush()
            os.fsync(file.fileno())


def of_basis(records: Sequence[Record], basis: str) -> dict[str, Record]:
    """The rows of a basis by their cells' ids."""
    return {record.cell.id: record for record in records if record.basis == basis}


def newest_basis(records: Sequence[Record], world: str) -> str:
    """Of a world's last row; empty where it has none."""
    return next((record.basis for record in reversed(records) if record.cell.world == world), "")
