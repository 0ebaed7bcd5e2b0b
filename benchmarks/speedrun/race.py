"""One seed of an entry, from the distilled start to the first point that meets all targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from benchmarks._shared.measuring import Enough
from benchmarks.speedrun.clock import Clock, Rows
from benchmarks.speedrun.targets import Look, Targets
from dipp_toolkit import Generator, TrainConfig, load_generator, load_reference, train
from dipp_toolkit.events import CheckpointEvent, StepEvent, WarmUpEvent
from dipp_toolkit.training.ema import WeightAverage
from dipp_toolkit.training.run_state.checkpoint import checkpoint_step, checkpoints, load_checkpoint
from dipp_toolkit.training.setup.assembly import adapter_settings
from dipp_toolkit.training.setup.resolve import resolve

LookAt = Callable[[Generator], Look]


@dataclass(frozen=True)
class Outcome:
    """What came of one seed so far.

    Attributes:
        seed: of the run.
        updates: generator updates at the newest look; of a run that reached its targets, those it took.
        seconds: processor seconds at that look.
        pieces: times that the run was begun or gone on with.
        reached: whether that look met all targets.
        look: what was seen.
    """

    seed: int
    updates: int
    seconds: float
    pieces: int
    reached: bool
    look: dict[str, float]

    @classmethod
    def of(cls, folder: Path, seed: int) -> Outcome | None:
        """What the files of a seed's folder say; None before the first look."""
        rows = Rows(folder / "points.jsonl").rows
        if not rows:
            return None
        last, clock = rows[-1], Clock(folder / "clock.jsonl")
        return cls(seed, last["step"], last["seconds"], clock.pieces, last["reached"], last["look"])


class Points:
    """A listener that notes the seconds of every update and looks at the averaged weights of every checkpoint.

    A look takes place when the checkpoint is whole on the disk, some updates after the one it is of; its seconds are
    those at which that one was done, and neither the look nor the updates after it count.

    Args:
        config: resolved settings of the run.
        folder: of the seed.
        look: at a generator.
        targets: that end the run.
        say: told of every look.
    """

    def __init__(
        self, config: TrainConfig, folder: Path, look: LookAt, targets: Targets, say: Callable[[str], None] = print
    ):
        self.config, self.look, self.targets, self.say = config, look, targets, say
        self.clock, self.points = Clock(folder / "clock.jsonl"), Rows(folder / "points.jsonl")
        self.generator = averaged_generator(config)

    @property
    def ended(self) -> bool:
        """Whether the newest look met all targets, or was the last."""
        rows = self.points.rows
        return bool(rows) and (rows[-1]["reached"] or rows[-1]["step"] >= self.config.steps)

    def dipp_on_warm_up(self, event: WarmUpEvent) -> None:
        self.clock.note(0)

    def dipp_on_step(self, event: StepEvent) -> None:
        self.clock.note(event.step)

    def dipp_on_checkpoint(self, event: CheckpointEvent) -> None:
        with self.clock.paused():
            self.look_at(event.folder)
        if self.ended and self.points.rows[-1]["reached"]:
            raise Enough

    def look_at(self, checkpoint: Path) -> None:
        """Look at a checkpoint, unless it was looked at, or is none of the points: an interruption leaves others."""
        step = checkpoint_step(checkpoint) or 0
        is_point = step % self.config.checkpoint_every == 0 or step == self.config.steps
        if not is_point or step <= max((row["step"] for row in self.points.rows), default=0):
            return
        average = WeightAverage(self.generator.network, decay=0)
        average.load_state_dict(load_checkpoint(checkpoint)["average"])
        with average.applied():
            seen = self.look(self.generator)
        met, seconds = self.targets.met(seen), self.clock.at(step)
        self.points.add(
            {"step": step, "seconds": seconds, "look": seen.as_dict(), "met": met, "reached": all(met.values())}
        )
        self.say(self._sentence(step, seconds, seen, met))

    def _sentence(self, step: int, seconds: float, seen: Look, met: dict[str, bool]) -> str:
        goals = self.targets
        parts = {
            "judge": f"judge {seen.judge:.2f} (above {goals.judge:.2f})",
            "naming": f"naming {100 * seen.naming:.1f} % ({100 * goals.naming:.0f} %)",
            "diversity": f"diversity {seen.diversity:.4f} ({goals.diversity:.4f})",
        }
        shown = ", ".join(f"{text}{' met' if met[name] else ''}" for name, text in parts.items())
        return f"seed {self.config.seed}, update {step} of {self.config.steps}, {seconds:.1f} s: {shown}"


def averaged_generator(config: TrainConfig) -> Generator:
    """The distilled start with the adapters that a run's average is of, to be filled from its checkpoints."""
    generator = load_generator(config.generator or "")
    if config.mode == "lora":
        reference: Any = load_reference(config.reference or "")
        cast(Any, generator).adapt(adapter_settings(config), reference, config.seed)
    return generator


def race(
    config: TrainConfig, folder: Path, look: LookAt, targets: Targets, say: Callable[[str], None] = print
) -> Outcome:
    """Run a seed to its end: all targets met, or the last update done. A run that was cut goes on from its checkpoint.

    Args:
        config: settings of the run.
        folder: keeps its run folder, `clock.jsonl` and `points.jsonl`.
        look: at a generator.
        targets: that end it.
        say: told of every look.

    Raises:
        RequestError: the settings cannot be used.
        RunError: the run failed.
        Interrupted: a signal arrived; the run is saved.
    """
    points, run = Points(resolve(config), folder, look, targets, say), folder / "run"
    for checkpoint in checkpoints(run / "checkpoints"):  # one may have become whole just before a kill
        if not points.ended:
            points.look_at(checkpoint)
    if not points.ended:
        points.clock.begin()
        try:
            resumes = (run / "config.yaml").is_file()
            train(config.model_copy(update={"resume": resumes}), listeners=[points])
        except Enough:
            pass
    outcome = Outcome.of(folder, config.seed)
    assert outcome is not None, "a run ends with a look at its last update"
    return outcome
