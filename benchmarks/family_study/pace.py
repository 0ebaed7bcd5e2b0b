"""What an update of each objective costs: measured side by side, in one process, turn by turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch

from benchmarks.family_study.objectives import OBJECTIVES, SHARED
from dipp_toolkit.config import TrainConfig
from dipp_toolkit.training.run import TrainingLoop
from dipp_toolkit.training.run_state.run_folder import choose_folder
from dipp_toolkit.training.setup.assembly import assemble
from dipp_toolkit.training.setup.resolve import resolve

WARM, ROUNDS = 1, 7
Key = TypeVar("Key")


def kind(objective: str) -> tuple[str, bool]:
    """What decides the cost of an update: the terms, and whether there are rewards. Their scale does not."""
    settings = OBJECTIVES[objective]
    return settings.get("term", "integral_kl"), settings.get("rewards") != {}


def _loop(settings: Mapping[str, Any], work: Path) -> TrainingLoop:
    own: dict[str, Any] = {**settings, "steps": WARM + ROUNDS, "out": work / "pace"}
    config = resolve(TrainConfig(**own))
    torch.manual_seed(config.seed)
    return TrainingLoop(config, assemble(config), choose_folder(config))


def turn_by_turn(
    settings: Mapping[Key, Mapping[str, Any]], work: Path, clock: Callable[[], float] = time.perf_counter
) -> dict[Key, float]:
    """Median time of an update of each of several trainings.

    They take turns, so that whatever else the machine does falls on all of them alike. Nothing is written.

    Args:
        settings: of each.
        work: below it their run folders would be.
        clock: gives seconds; `time.process_time` is hardly touched by what else the machine does.
    """
    loops = {name: _loop(own, work) for name, own in settings.items()}
    seconds: dict[Key, list[float]] = {name: [] for name in loops}
    for turn in range(WARM + ROUNDS):
        for name, loop in loops.items():
            started = clock()
            loop.one_step()
            if turn >= WARM:
                seconds[name].append(clock() - started)
    return {name: median(times) for name, times in seconds.items()}


def seconds_per_update(work: Path) -> dict[str, float]:
    """Median time of an update of every objective; those of one kind have one time."""
    seconds = turn_by_turn({kind(name): {**SHARED, **OBJECTIVES[name]} for name in OBJECTIVES}, work)
    return {name: seconds[kind(name)] for name in OBJECTIVES}
