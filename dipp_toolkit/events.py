"""The events that a run sends to its listeners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from .config import TrainConfig

if TYPE_CHECKING:  # it imports torch
    from .utils.precision import PrecisionChoice

MOST = 100.0
"""Either way. Two terms that differ more are one term: a hundredth of a gradient changes nothing visible.

The emoji world's recommended run has 2.8, with `reward_scale=1e5` 3300."""
USUAL = 0.7
"""A ratio to begin with: at it the emoji world's rewards rise and the divergence still holds; up to 2.8 did so too."""


@dataclass(frozen=True)
class RunStartEvent:
    """A run begins: its settings, its folder, and the step it starts from (not 0 when resumed).

    Attributes:
        precision: of its passes and why it is that one; None where nothing was chosen.
        warnings: sentences about what it starts with, or resumes from.
        licences: sentences about weights that are not for commercial use.
        notes: sentences about its start that may be of use and need no action.
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
        warnings: sentences about blocks that could not be compiled, at the step that tried.
    """

    step: int
    steps: int
    metrics: Mapping[str, float]
    skipped: tuple[str, ...] = ()
    pull: FirstPull | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class MonitorEvent:
    """The held-out prompts were looked at.

    Attributes:
        step: after which generator update; 0 is the start.
        steps: of how many.
        numbers: what goes to `monitors.jsonl`, see `dipp_toolkit.monitoring.history.row_of`.
        warnings: what is wrong, none where nothing is.
        stop: why the run ends here, empty where it continues.
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


class Warned(BaseModel):
    """A warning of `dipp_toolkit.monitoring`: which, and the sentence with its numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    text: str


def healthy(ratio: float) -> bool:
    """Whether neither side decides alone."""
    return 1 / MOST <= ratio <= MOST


@dataclass(frozen=True)
class FirstPull:
    """How hard the rewards pull at one of the first updates, and what would change it.

    Attributes:
        ratio: norm of the rewards' joint gradient on the samples over the divergence's, above 0; None where one of them
            has no gradient.
        scale: the run's `reward_scale`, above 0; None where it is measured.
        asked: the requested pull that it is measured for.
    """

    ratio: float | None
    scale: float | None
    asked: float = USUAL

    @property
    def healthy(self) -> bool:
        """Whether neither side decides alone."""
        return self.ratio is not None and healthy(self.ratio)

    @property
    def usual_scale(self) -> float:
        """The `reward_scale` at which the ratio would be about `USUAL`, to two digits: the pull is linear in it."""
        assert self.scale is not None and self.ratio is not None
        return float(f"{self.scale * USUAL / self.ratio:.1e}")

    def __str__(self) -> str:
        strength = f"pull {self.asked:g}" if self.scale is None else f"reward_scale {self.scale:g}"
        if self.ratio is None:
            return (
                f"The rewards wait ({strength}): they or the divergence have no gradient yet, so there is no pull to "
                "measure."
            )
        times = f"{self.ratio:.2g}" if self.ratio < 100 else f"{float(f'{self.ratio:.1e}'):,.0f}"
        begin = f"The rewards pull {times} times as hard as the divergence ({strength})"
        if self.healthy:
            return f"{begin}."
        outcome = "will change next to nothing" if self.ratio < 1 else "decide alone, and the divergence holds nothing"
        return f"{begin}: they {outcome}. {self._advice()}"

    def _advice(self) -> str:
        if self.scale is not None:
            return f"--pull {USUAL:g} or --reward-scale {plain(self.usual_scale)} would make it {USUAL:g}."
        if not healthy(self.asked):
            return f"--pull {USUAL:g} would let both count."
        return (
            "Gradients have changed since it was measured: raise assistant_warmup, so that the assistant follows the "
            "generator before the first update."
        )


def plain(number: float) -> str:
    """A number as one types it, without an exponent."""
    return f"{number:.0f}" if number >= 10 else f"{number:g}"
