"""An ablation, top to bottom: train the cells, bench them beside what they started from, write the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..assembly import choose_device
from ..bench.contestants import Contestant
from ..bench.run import Listener, run_bench
from ..bench.settings import METRICS, BenchSettings
from ..config import TrainConfig
from ..contained import check_folder_place
from ..errors import RequestError, RunError
from ..loading import load_metric
from ..naming import unknown_name
from ..processes import Processes
from ..resolving import resolve
from .cells import CellFolder, CellListener, check_trained_cells, folders_of, train_cells
from .choose import Choice, Constraint, choose
from .grid import Cell, check_cells
from .page import write_page
from .study import Study, make_study


@runtime_checkable
class AblationListener(CellListener, Listener, Protocol):
    """Told how the cells and then the bench go on."""


@dataclass(frozen=True)
class AblationSettings:
    """What varies, what is measured, and what is asked of it.

    Attributes:
        cells: the combinations to train.
        base: the settings they share.
        out: the ablation's folder.
        rewards: rewards to measure beside those that a cell is trained on.
        judges: rewards that judge; the base's judge where none is named.
        metrics: metrics beside those always measured.
        options: of rewards and metrics, by name.
        count: held-out prompts the cells are measured on; all where None.
        seeds: noises of every prompt.
        best: figure by which the best combination is chosen; the first judge's where None.
        constraints: what the best must keep to.
        batch: images at a time.
        command: what to type to do this again.
    """

    cells: Sequence[Cell]
    base: TrainConfig
    out: Path
    rewards: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    count: int | None = None
    seeds: tuple[int, ...] = (1, 2)
    best: str | None = None
    constraints: Sequence[Constraint] = ()
    batch: int = 32
    command: str = ""


@dataclass(frozen=True)
class AblationResult:
    """What came out: the numbers, the choice, the page, and cells that failed with the reason."""

    study: Study
    choice: Choice
    page: Path
    failed: Mapping[str, str]


def bench_settings(settings: AblationSettings, folders: Sequence[CellFolder]) -> BenchSettings:
    """The bench of all trained cells, the generator they started from and the reference."""
    config = resolve(folders[0].cell.config(settings.base))
    trained = [name for folder in folders for name in folder.cell.config(settings.base).rewards]
    trained += list(config.rewards)
    judges = settings.judges or ((config.judge,) if config.judge else ())
    rewards = tuple(dict.fromkeys(one for one in (*trained, *settings.rewards) if one not in judges))
    options = {name: dict(values) for name, values in config.reward_options.items() if name in (*rewards, *judges)}
    others = []
    if config.reference is not None:
        sampling = {"steps": config.reference_steps, "guidance": config.comparison_guidance}
        others.append(Contestant("reference", config.reference, sampling))
    if config.generator is not None:
        others.append(Contestant("start", config.generator))
    prompts = config.eval_prompts or config.prompts or ""
    if settings.count is not None:
        prompts += f"{'&' if '?' in prompts else '?'}count={settings.count}"
    cells = [Contestant(one.cell.label, str(one.path), {}, dict(one.cell.values)) for one in folders if one.done]
    return BenchSettings(
        contestants=(*others, *cells),
        prompts=prompts,
        rewards=rewards,
        judges=judges,
        metrics=(*METRICS, *settings.metrics),
        options={**options, **settings.options},
        seeds=settings.seeds,
        out=settings.out,
        batch=settings.batch,
        device=settings.base.device,
        command=settings.command,
    )


def check_ablation(settings: AblationSettings) -> None:
    """Refuse settings that no cell can be trained with, before the first one is.

    Raises:
        RequestError: as a sentence.
    """
    check_folder_place(settings.out, "ablation's folder")
    check_cells(settings.cells, settings.base)
    for cell in settings.cells:
        resolve(cell.config(settings.base))
    folders = folders_of(settings.cells, settings.out)
    check_trained_cells(folders, settings.base)
    check_figures(settings, bench_settings(settings, folders))


def check_figures(settings: AblationSettings, bench: BenchSettings) -> None:
    """Refuse a figure to choose by that will not be measured; it would be missed after all cells were trained.

    Raises:
        RequestError: with those there will be.
    """
    wanted = [*filter(None, [settings.best]), *(one.figure for one in settings.constraints)]
    known = [*bench.rewards, *bench.judges]
    if all(name in known for name in wanted):
        return
    known += [figure for name in bench.metrics for figure in load_metric(name, **bench.options.get(name, {})).better]
    for name in wanted:
        if not any(name == one or name.startswith(f"{one}-") for one in known):
            raise RequestError(unknown_name("figure", name, known))


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
    failed = {one.cell.label: one.failure for one in folders if not one.done}
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
