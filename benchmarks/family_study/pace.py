"""What an update of each objective costs: measured side by side, in one process, turn by turn."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.family_study.objectives import OBJECTIVES, SHARED
from dipp_toolkit.config import TrainConfig
from dipp_toolkit.training.run import TrainingLoop
from dipp_toolkit.training.run_state.run_folder import choose_folder
from dipp_toolkit.training.setup.assembly import assemble
from dipp_toolkit.training.setup.resolve import resolve

WARM, ROUNDS = 1, 7


def kind(objective: str) -> tuple[str, bool]:
    """What decides the cost of an update: the terms, and whether there are rewards. Their scale does not."""
    settings = OBJECTIVES[objective]
    return settings.get("term", "integral_kl"), settings.get("rewards") != {}


def _loop(objective: str, work: Path) -> TrainingLoop:
    settings: dict[str, Any] = {**SHARED, **OBJECTIVES[objective]}
    config = resolve(TrainConfig(**settings, steps=WARM + ROUNDS, out=work / "pace"))
    torch.manual_seed(config.seed)
    return TrainingLoop(config, assemble(config), choose_folder(config))


def seconds_per_update(work: Path) -> dict[str, float]:
    """Median time of an update of every objective; those of one kind have one time.

    The objectives take turns, so that whatever else the machine does falls on all of them alike. Nothing is written.
    """
    loops = {kind(name): _loop(name, work) for name in OBJECTIVES}
    seconds: dict[tuple[str, bool], list[float]] = {key: [] for key in loops}
    for turn in range(WARM + ROUNDS):
        for key, loop in loops.items():
            started = time.perf_counter()
            loop.one_step()
            if turn >= WARM:
                seconds[key].append(time.perf_counter() - started)
    return {name: median(seconds[kind(name)]) for name in OBJECTIVES}
