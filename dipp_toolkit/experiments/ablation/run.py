"""An ablation, top to bottom: train the cells, bench them beside what they started from, write the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from ...distributed import Processes
from ...errors import RunError
from ...utils.device import choose_device
from ..bench.run import Listener, run_bench
from .best_cell import Choice, choose
from .cells import CellListener, train_cells
from .page import write_page
from .results import Study, make_study
from .settings import AblationSettings, bench_settings, check_ablation


@runtime_checkable
class AblationListener(CellListener, Listener, Protocol):
    """Told how the cells and then the bench go on."""


@dataclass(frozen=True)
class AblationResult:
    """What came out: the numbers, the choice, the page, and cells that failed with the reason."""

    study: Study
    choice: Choice
    page: Path
    failed: Mapping[str, str]


def ablate(settings: AblationSettings, listener: AblationListener) -> AblationResult | None:
    """Train, measure, and write `ablation.html` and `results.jsonl`; None in a process that only helped.

    Raises:
        RequestError: a setting, reward or figure cannot be used.
        RunError: every cell failed.
        Interrupted: a signal arrived; what was done is kept.
    """
    check_ablation(settings)
    processes = Processes.launched(choose_device(settings.base.device))
    folders = train_cells(settings.cells, settings.base, settings.out, processes, listener)
    processes.wait()
    failed = {folder.cell.label: folder.failure for folder in folders if not folder.done}
    if len(failed) == len(folders):
        raise RunError(f"Every cell failed; the first one: {next(iter(failed.values()))}")
    bench = bench_settings(settings, folders)
    rows = run_bench(bench, listener)
    if not processes.main:
        return None
    study = make_study(settings.cells, rows)
    figure = settings.best or next(iter([*bench.judges, *bench.rewards]))
    choice = choose(study, figure, settings.constraints)
    return AblationResult(study, choice, write_page(settings, study, choice, failed), failed)
