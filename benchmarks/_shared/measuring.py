"""What the benchmarks of speed and memory share: steps of a real training beside anything else, turn by turn."""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from dipp_toolkit import TrainConfig, train
from dipp_toolkit.experiments.profile.parts import wait
from dipp_toolkit.training.run import TrainingLoop
from dipp_toolkit.utils.device import environment

PLAIN: dict[str, Any] = {
    "monitor_every": 0,
    "diagnose_every": 0,
    "sample_every": 10**6,
    "eval_count": 2,
    "reference_steps": 1,
    "steps": 10**6,
}
"""Settings of a training that is only stepped: no looks at held-out prompts and no sample grids in between."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of measurements."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        return cls(middle, low, high, len(values))

    def text(self, unit: str = "ms", scale: float = 1e3, digits: int = 0) -> str:
        """`median (quartile to quartile) unit`."""
        shown = [f"{scale * value:.{digits}f}" for value in (self.median, self.low, self.high)]
        return f"{shown[0]}{unit and ' '}{unit} ({shown[1]} to {shown[2]})"


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}
"""What time is taken by. The processor's, on one thread, is hardly touched by what else a machine does."""


class Enough(BaseException):
    """Ends a training that was only measured; no handler of errors takes it for one."""


@dataclass
class Turns:
    """A training whose steps take turns with other work, in one process.

    A real step is measured from the moment the other work ends to the moment the next step begins: besides the step
    itself it holds all that the training does between two steps. Checkpoints are written in the background, so the
    blocks after one run without a turn of the other work, and what they take too long is the checkpoint's cost.

    Attributes:
        make: given the loop, says what takes turns with it, by name.
        rounds: turns that count.
        warm: turns before them.
        block: steps a turn; a checkpoint comes only at a block's end.
        settle: blocks after that of a checkpoint in which it may still be written.
        clock: gives seconds; see `CLOCKS`.
        saves: checkpoints that are waited for, more turns being taken until then.
        measured: seconds a step of each turn that counts: `"step"`, and the other work by name.
        checkpoints: seconds that each checkpoint took of the training's time.
    """

    make: Callable[[TrainingLoop], Mapping[str, Callable[[], None]]]
    rounds: int
    warm: int = 2
    block: int = 1
    settle: int = 2
    clock: Callable[[], float] = time.perf_counter
    saves: int = 0
    measured: list[dict[str, float]] = field(default_factory=list, init=False)
    _work: Mapping[str, Callable[[], None]] = field(default_factory=dict, init=False)
    _turn: dict[str, float] = field(default_factory=dict, init=False)
    _taken: int = field(default=0, init=False)
    _began: tuple[int, float] | None = field(default=None, init=False)
    _saving: list[float] = field(default_factory=list, init=False)
    _saved: list[float] = field(default_factory=list, init=False)

    def run(self, config: TrainConfig) -> Turns:
        """Train until every turn was taken; what the training would do at its end is left out."""
        step, turns = TrainingLoop.one_step, self

        def between(loop: TrainingLoop) -> Any:
            turns._before_step(loop)
            return step(loop)

        with patch.object(TrainingLoop, "one_step", between):
            try:
                train(config)
            except Enough:
                gc.collect()
                return self
        raise RuntimeError("The training ended before every turn was taken.")

    def _before_step(self, loop: TrainingLoop) -> None:
        device = loop.parts.device
        if self._began is None:
            self._work = self.make(loop)
        elif loop.step - self._began[0] < self.block:
            return
        else:
            wait(device)
            self._note((self.clock() - self._began[1]) / self.block, loop)
        if not self._saving:
            self._take_turn(device)
        wait(device)
        self._began = loop.step, self.clock()

    def _note(self, seconds: float, loop: TrainingLoop) -> None:
        """Take in the block of steps that has just ended."""
        if self._saving or loop.step % loop.config.checkpoint_every == 0:
            self._saving.append(seconds)
            if len(self._saving) > self.settle:
                self._saved.append(sum(self._saving) * self.block)
                self._saving = []
        elif self._taken > self.warm:
            self.measured.append({"step": seconds, **self._turn})
        if len(self.measured) >= self.rounds and len(self._saved) >= self.saves:
            raise Enough

    def _take_turn(self, device: torch.device) -> None:
        self._taken += 1
        for name, work in self._work.items():
            wait(device)
            started = self.clock()
            for _ in range(self.block):
                work()
            wait(device)
            self._turn[name] = (self.clock() - started) / self.block

    def seconds(self, name: str) -> list[float]:
        """Of every turn that counts."""
        return [turn[name] for turn in self.measured]

    @property
    def checkpoints(self) -> list[float]:
        usual = statistics.median(self.seconds("step")) * self.block * (self.settle + 1)
        return [seconds - usual for seconds in self._saved]


def ran_on(device: torch.device) -> str:
    """The machine and the libraries, in a sentence."""
    about = environment(device)
    versions = ", ".join(f"{name} {about[name]}" for name in ("python", "torch", "diffusers", "dipp_toolkit"))
    return f"{about['device']} ({os.cpu_count()} cores), {versions}, {about['platform']}."


def write_results(folder: Path, numbers: Mapping[str, Any], page: str) -> None:
    """Write a page, `results.md`, and the numbers behind it, `results.json`, to a benchmark's folder."""
    (folder / "results.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    (folder / "results.md").write_text(page.rstrip() + "\n", encoding="utf-8")


def print_results(folder: Path) -> None:
    """Show what was written."""
    sys.stdout.write((folder / "results.md").read_text(encoding="utf-8"))


def choose(name: str, threads: int) -> torch.device:
    """The device of this name, with this many threads for a CPU's operators."""
    torch.set_num_threads(threads)
    return torch.device(name)
