"""Trains the runs of the study: under equal generator updates, then under equal time. Finished runs are kept."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from objectives import OBJECTIVES, PACE, SHARED, UPDATES

from dipp_toolkit.bench.processes import Processes
from dipp_toolkit.config import TrainConfig
from dipp_toolkit.report.run_files import read_metrics
from dipp_toolkit.training import train


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

    def seconds_per_update(self) -> float:
        """Median time of an update, as measured in this run."""
        seconds = [row["seconds"] for row in read_metrics(self.folder / "metrics.jsonl")]
        return median(later - earlier for earlier, later in pairwise(seconds))

    def config(self) -> TrainConfig:
        """Its settings; it goes on where it was cut off."""
        settings: dict[str, Any] = {**SHARED, **OBJECTIVES[self.objective]}
        begun = (self.folder / "config.yaml").is_file()
        return TrainConfig(**settings, steps=self.steps, seed=self.seed, out=self.folder, resume=begun)

    def train(self) -> None:
        """Train it, unless that is done."""
        if not self.done:
            print(f"{self.label}: {self.steps} updates ({self.budget})", flush=True)
            train(self.config())
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


def equal_time(work: Path, runs: list[Run]) -> list[Run]:
    """The same, of as many updates as take the time of `PACE`; an update's time is the median over an objective's runs.

    The numbers of updates are written down when they are first known, so that going on does not change them.
    """
    plan = work / "equal-time.json"
    if not plan.is_file():
        pace = {name: median(run.seconds_per_update() for run in runs if run.objective == name) for name in OBJECTIVES}
        total = pace[PACE] * next(run.steps for run in runs if run.objective == PACE)
        counts = {name: max(round(total / seconds), 1) for name, seconds in pace.items()}
        plan.write_text(json.dumps({"seconds_per_update": pace, "updates": counts}, indent=2) + "\n", encoding="utf-8")
    counts = json.loads(plan.read_text(encoding="utf-8"))["updates"]
    found = []
    for run in runs:
        if run.objective == PACE:  # its run under equal updates is the one under equal time
            found.append(Run(run.objective, "time", run.seed, run.steps, run.folder))
        else:
            folder = work / "time" / f"{slug(run.objective)}-{run.seed}"
            found.append(Run(run.objective, "time", run.seed, counts[run.objective], folder))
    return found


def train_share(runs: list[Run], processes: Processes) -> Iterator[Run]:
    """Train this process's share."""
    for run in processes.share(runs):
        run.train()
        yield run
