"""Trains the cells: one folder each, resumed where it was stopped, shared by the processes of a launcher."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from ...config import TrainConfig
from ...distributed import Processes
from ...errors import Interrupted, RequestError, RunError
from ...training.run import train
from ...training.setup.resolve import resolve
from ...utils.atomic import write_text
from .grid import Cell
from .trained_with import differences, note_contents

CELLS, FAILED, CONTENTS = "cells", "failed.txt", "contents.json"


@runtime_checkable
class CellListener(Protocol):
    """Told how an ablation goes on."""

    def cell(self, cell: Cell, number: int, total: int, state: str) -> None:
        """A cell is `done already`, `starts`, `resumes` or `failed: ...`."""


@dataclass(frozen=True)
class CellFolder:
    """A cell and its run folder."""

    cell: Cell
    path: Path

    @property
    def done(self) -> bool:
        """Whether the run is complete, its summary and its report being written last."""
        return all((self.path / name).is_file() for name in ("summary.json", "report.html"))

    @property
    def contents(self) -> Path:
        """A file of digests of what the cell was trained with."""
        return self.path.with_name(f"{self.path.name}.{CONTENTS}")

    @property
    def failure(self) -> str:
        """Why the training failed; empty where it did not."""
        path = self.path.with_name(f"{self.path.name}.{FAILED}")
        return path.read_text(encoding="utf-8").strip() if path.is_file() and not self.done else ""

    def note_failure(self, text: str) -> None:
        """Keep why the training failed, or forget it."""
        path = self.path.with_name(f"{self.path.name}.{FAILED}")
        if text:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text + "\n")
        else:
            path.unlink(missing_ok=True)


def folders_of(cells: Sequence[Cell], out: Path) -> list[CellFolder]:
    """Every cell with its run folder below `out`."""
    return [CellFolder(cell, out / CELLS / cell.slug) for cell in cells]


def cell_config(folder: CellFolder, base: TrainConfig) -> TrainConfig:
    """The settings of a cell's training in its folder, which goes on where it was begun."""
    started = (folder.path / "config.yaml").is_file()
    # model_copy marks both as given, which resolving needs.
    return folder.cell.config(base).model_copy(update={"out": folder.path, "resume": started})


def check_trained_cells(folders: Sequence[CellFolder], base: TrainConfig) -> None:
    """Refuse finished cells that were trained with other settings or files than are asked for now.

    Raises:
        RequestError: naming the first such cell, what differs, and the two ways on.
    """
    for folder in folders:
        different = differences(folder.path, folder.contents, resolve(cell_config(folder, base))) if folder.done else []
        if different:
            raise RequestError(
                f"The cell {folder.path} was trained with other inputs: {'; '.join(different)}. Name another folder "
                f"with --out, or remove {folder.path.parent} to train its cells again."
            )


def train_cells(
    cells: Sequence[Cell], base: TrainConfig, out: Path, processes: Processes, listener: CellListener
) -> list[CellFolder]:
    """Train what is not trained yet of this process's share.

    A cell whose training fails is noted and passed over; the others still run, and calling again tries it again.

    Args:
        cells: all cells.
        base: the settings they share.
        out: the ablation's folder.
        processes: those that share the work.
        listener: told how it goes on.

    Returns:
        All cells with their folders.

    Raises:
        RequestError: a setting cannot be used, or a finished cell was trained with something else.
        Interrupted: a signal arrived; what was done is kept.
    """
    folders = folders_of(cells, out)
    check_trained_cells(folders, base)
    for number, folder in processes.share(list(enumerate(folders, 1))):
        if folder.done:
            listener.cell(folder.cell, number, len(folders), "done already")
            continue
        config = cell_config(folder, base)
        listener.cell(folder.cell, number, len(folders), "resumes" if config.resume else "starts")
        config = resolve(config)
        if not config.resume:
            note_contents(folder.contents, config)
        try:
            train(config, processes=Processes())
            folder.note_failure("")
        except Interrupted as stop:
            raise Interrupted(f"{stop} Or resume all cells with the same dipp ablate command.") from None
        except RunError as error:
            folder.note_failure(str(error))
            listener.cell(folder.cell, number, len(folders), f"failed: {error}")
        gc.collect()
    return folders
