"""What varies in an ablation, what is measured, and what is checked before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...config import TrainConfig
from ...errors import RequestError
from ...evaluation.loading import load_metric
from ...training.setup.preflight import Preflight, check_run, dry_run_parts
from ...training.setup.resolve import resolve
from ...utils.messages import unknown_name
from ...utils.paths import check_folder_place
from ..bench.entries import BenchEntry
from ..bench.preflight import look_at_bench
from ..bench.settings import METRICS, BenchSettings
from .best_cell import Constraint
from .cells import CellFolder, cell_config, check_trained_cells, folders_of
from .grid import Cell, check_cells


@dataclass(frozen=True)
class AblationSettings:
    """What varies, what is measured, and how the best combination is chosen.

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


def bench_settings(settings: AblationSettings, folders: Sequence[CellFolder]) -> BenchSettings:
    """The bench of all trained cells, the generator they started from and the reference."""
    config = resolve(folders[0].cell.config(settings.base))
    trained = [name for folder in folders for name in folder.cell.config(settings.base).rewards]
    trained += list(config.rewards)
    judges = settings.judges or ((config.judge,) if config.judge else ())
    rewards = tuple(dict.fromkeys(name for name in (*trained, *settings.rewards) if name not in judges))
    options = {name: dict(values) for name, values in config.reward_options.items() if name in (*rewards, *judges)}
    others = []
    if config.reference is not None:
        sampling = {"steps": config.reference_steps, "guidance": config.comparison_guidance}
        others.append(BenchEntry("reference", config.reference, sampling))
    if config.generator is not None:
        others.append(BenchEntry("start", config.generator))
    prompts = config.eval_prompts or config.prompts or ""
    if settings.count is not None:
        prompts += f"{'&' if '?' in prompts else '?'}count={settings.count}"
    cells = [
        BenchEntry(folder.cell.label, str(folder.path), {}, dict(folder.cell.values))
        for folder in folders
        if folder.done
    ]
    return BenchSettings(
        entries=(*others, *cells),
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
    needed = [*filter(None, [settings.best]), *(rule.figure for rule in settings.constraints)]
    figures = [*bench.rewards, *bench.judges]
    if all(name in figures for name in needed):
        return
    figures += [figure for name in bench.metrics for figure in load_metric(name, **bench.options.get(name, {})).better]
    for name in needed:
        if not any(name == figure or name.startswith(f"{figure}-") for figure in figures):
            raise RequestError(unknown_name("figure", name, figures))


def preflight_ablation(settings: AblationSettings) -> Preflight:
    """Look at everything an ablation needs: every cell's training, and the bench of all.

    Returns:
        What would be done.

    Raises:
        RequestError: what the ablation would be refused with.
    """
    check_ablation(settings)
    with dry_run_parts() as parts:
        folders = folders_of(settings.cells, settings.out)
        waiting = [folder for folder in folders if not folder.done]
        runs = [check_run(cell_config(folder, settings.base), parts) for folder in waiting]
        bench = look_at_bench(bench_settings(settings, folders), parts)
        shared = {
            name: text
            for name, text in (runs[0] if runs else {}).items()
            if name != "folder" and all(run.get(name) == text for run in runs)
        }
        rows = {
            "cells": f"{len(folders)}, {len(folders) - len(waiting)} done already",
            "varied": "; ".join(_varied(settings)),
            **shared,
            "measured on": f"{bench['prompts']}, {len(settings.seeds)} noises each",
            **{f"measured {name}": bench[name] for name in ("rewards", "judges", "metrics") if name in bench},
            "folder": str(settings.out),
        }
        return Preflight(rows, tuple(parts.fetched))


def _varied(settings: AblationSettings) -> list[str]:
    values: dict[str, dict[str, None]] = {}
    for cell in settings.cells:
        for name, value in cell.values.items():
            values.setdefault(name, {})[value] = None
    return [f"{name}: {', '.join(names)}" for name, names in values.items()]
