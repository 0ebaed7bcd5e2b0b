"""What a run tells its listeners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bench.rows import Warned
from .config import TrainConfig
from .diagnostics.first_pull import FirstPull
from .precision_choice import PrecisionChoice


@dataclass(frozen=True)
class RunStartEvent:
    """A run begins: its settings, its folder, and the step it starts from (not 0 when resumed).

    Attributes:
        precision: of its passes and why it is that one; None where nothing was chosen.
        warnings: sentences about what it begins with, or goes on from.
        licences: sentences about weights that are not for commercial use.
        notes: sentences about how it begins that ask for nothing and may be of use.
    """

    config: TrainConfig
    folder: Path
    step: int
    precision: PrecisionChoice | None = None
    warnings: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class WarmUpEvent:
    """An update of the assistant before the generator's first: its number (from 1), of how many.

    Attributes:
        loss: the assistant's; not finite where the update was skipped.
        skipped: why it was not made, none where it was.
    """

    update: int
    updates: int
    loss: float
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class StepEvent:
    """One generator update: its number (from 1), of how many, and the numbers that go to `metrics.jsonl`.

    Attributes:
        skipped: why updates of this step were not made, none where all were.
        pull: of the run's first update, how hard the rewards pull beside the divergence; of the next few where one of
            them decides alone, once. None of every other one.
    """

    step: int
    steps: int
    metrics: Mapping[str, float]
    skipped: tuple[str, ...] = ()
    pull: FirstPull | None = None


@dataclass(frozen=True)
class MonitorEvent:
    """The held-out prompts were looked at.

    Attributes:
        step: after which generator update; 0 is the start.
        steps: of how many.
        numbers: what goes to `monitors.jsonl`, see `dipp_toolkit.monitors.record.row_of`.
        warnings: what is wrong, none where nothing is.
        stop: why the run ends here, empty where it goes on.
    """

    step: int
    steps: int
    numbers: Mapping[str, Any]
    warnings: tuple[Warned, ...]
    stop: str = ""


@dataclass(frozen=True)
class CheckpointEvent:
    """A checkpoint is whole on disk."""

    step: int
    folder: Path


@dataclass(frozen=True)
class RunEndEvent:
    """A run is over; `summary` is what `summary.json` holds."""

    folder: Path
    summary: Mapping[str, Any]
