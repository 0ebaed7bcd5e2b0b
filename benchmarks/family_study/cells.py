"""Trains the runs of the study: under equal generator updates, then under equal time. Finished runs are kept."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.family_study.objectives import OBJECTIVES, PACE, SHARED, UPDATES
from benchmarks.family_study.pace import seconds_per_update
from dipp_toolkit.config import TrainConfig
from dipp_toolkit.distributed import Processes
from dipp_toolkit.training.run import train
from dipp_toolkit.utils.atomic import write_text

PLAN = "equal-time.json"


@dataclass(frozen=True)
class Run:
    """One training of the study.

    Attributes:
        objective: a name of `OBJECTIVES`.
        budget: `updates` or `time`.
        seed: of the run.
        steps: generator updates.
        folder: where it is kept.
    """

    objective: str
    budget: str
    seed: int
    steps: int
    folder: Path

    @property
    def done(self) -> bool:
        """Whether the training is complete."""
        return (self.folder / "summary.json").is_file()

    @property
    def label(self) -> str:
        """What the table calls it."""
        return f"{self.objective}, seed {self.seed}"

    def config(self) -> TrainConfig:
        """Its settings; it goes on where it was cut off."""
        settings: dict[str, Any] = {**SHARED, **OBJECTIVES[self.objective]}
        begun = (self.folder / "config.yaml").is_file()
        return TrainConfig(**settings, steps=self.steps, seed=self.seed, out=self.folder, resume=begun)

    def train(self) -> None:
        """Train it, unless that is done."""
        if not self.done:
            print(f"{self.label}: {self.steps} updates ({self.budget})", flush=True)
            train(self.config(), processes=Processes())
            gc.collect()


def slug(objective: str) -> str:
    """The folder of an objective."""
    return objective.replace("*", "-star").replace("++", "pp").replace(" ", "-")


def equal_updates(work: Path, seeds: int, updates: int = UPDATES) -> list[Run]:
    """A run for every seed and objective, all of as many updates."""
    return [
        Run(name, "updates", seed, updates, work / "updates" / f"{slug(name)}-{seed}")
        for seed in range(seeds)
        for name in OBJECTIVES
    ]


def plan_equal_time(work: Path, updates: int = UPDATES) -> None:
    """Write down how many updates of each objective take the time of `updates` of `PACE`.

    Measured once: going on with the study does not change the numbers.
    """
    plan = work / PLAN
    if not plan.is_file():
        pace = seconds_per_update(work)
        counts = {name: max(round(pace[PACE] * updates / seconds), 1) for name, seconds in pace.items()}
        text = json.dumps({"seconds_per_update": pace, "updates": counts}, indent=2) + "\n"
        write_text(plan, text)


def equal_time(work: Path, runs: list[Run]) -> list[Run]:
    """The runs of the plan. Where an objective has as many updates in both, its run under equal updates is taken."""
    counts = json.loads((work / PLAN).read_text(encoding="utf-8"))["updates"]
    runs_of_time = []
    for run in runs:
        steps = counts[run.objective]
        new = work / "time" / f"{slug(run.objective)}-{run.seed}"
        runs_of_time.append(Run(run.objective, "time", run.seed, steps, run.folder if steps == run.steps else new))
    return runs_of_time


def train_share(runs: list[Run], processes: Processes) -> Iterator[Run]:
    """Train this process's share."""
    for run in processes.share(runs):
        run.train()
        yield run
