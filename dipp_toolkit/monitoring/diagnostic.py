"""What a diagnostic is, and all of them at once: those that the files of `diagnostics/` define.

A file of that folder with a tuple `DIAGNOSTICS` needs no other change anywhere: the training measures what it defines
and writes it to `diagnostics.jsonl`, the report draws its chart, its warning reaches the page and `summary.json`, and
the verdict heeds it. The order is that of the files' names.
"""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from ..config import TrainConfig
from ..events import Warned
from ..objective.base import side_of
from ..objective.evaluate import WeightedTerm
from ..protocols import Reference
from ..utils.jsonl import read_looks
from ..utils.messages import number_text
from . import diagnostics
from .denoised import Denoised
from .probe import Probe

Row = Mapping[str, Any]
"""A line of `diagnostics.jsonl`."""


@dataclass(frozen=True)
class Sides:
    """Names of an objective's terms that pull towards rewards, and of those that pull back to the reference."""

    rewards: Sequence[str]
    divergences: Sequence[str]


def sides_of(terms: Sequence[WeightedTerm]) -> Sides:
    """The terms of each side; one that is both, a diffused reward say, is of neither."""
    return Sides(
        [weighted.name for weighted in terms if side_of(weighted.term) == "rewards"],
        [weighted.name for weighted in terms if side_of(weighted.term) == "divergences"],
    )


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What is seen in one diagnosis.

    Attributes:
        probe: the prompts and noises.
        reference: decodes the samples.
        x0: the generator's samples of the probe.
        denoised: how assistant and reference see them noised; None where the assistant is not trained.
        metrics: lines of `metrics.jsonl` since the diagnosis before, in order.
        sides: of the objective's terms.
    """

    probe: Probe
    reference: Reference
    x0: Float[Tensor, "rows ..."]
    denoised: Denoised | None
    metrics: Sequence[Mapping[str, float]]
    sides: Sides


class Line(NamedTuple):
    """A line of a chart: its name, and a value at each place, usually a step."""

    name: str
    places: Sequence[float]
    values: Sequence[float]


def no_measurement(observation: Observation) -> Mapping[str, Any]:
    """For a diagnostic that reads what another one of its file measures."""
    return {}


def no_warning(rows: Sequence[Row]) -> Warned | None:
    """For a diagnostic without a healthy range."""
    return None


def always(config: TrainConfig) -> bool:
    """For a diagnostic that holds for every run."""
    return True


@dataclass(frozen=True, kw_only=True)
class Diagnostic:
    """One thing to know of a training: what is measured, its chart, and its warning.

    Attributes:
        name: of its warning; empty where it has none.
        title: of its chart.
        reading: what the chart shows, in sentences.
        healthy: what it looks like where all is well, in sentences.
        paths: where a row holds its numbers, by the names of the chart's lines.
        measure: what a diagnosis adds to its row; nothing where it cannot be measured.
        warn: the warning, or None, from the rows so far.
        applies: whether the warning is meant for a run of these settings.
        about_images: whether the warning is about the images rather than the way the training goes: with it, no run is
            called better.
        absence: why a run has no numbers of it, for the report; empty where that needs no word.
        needs: rows without which nothing is missing: 2 for what is measured between two diagnoses.
        include: values that the chart's axis reaches.
        log: whether its axis may be logarithmic.
        axis: what its lines run over.
        lines_of: the chart's lines, where `paths` do not say them.
        now_of: those lines in words, where "0.04 at step 40, from 0.03 at step 0" does not fit.
    """

    title: str
    reading: str
    healthy: str
    name: str = ""
    paths: Mapping[str, Sequence[str]] = field(default_factory=dict)
    measure: Callable[[Observation], Mapping[str, Any]] = no_measurement
    warn: Callable[[Sequence[Row]], Warned | None] = no_warning
    applies: Callable[[TrainConfig], bool] = always
    about_images: bool = False
    absence: str = ""
    needs: int = 1
    include: Sequence[float] = ()
    log: bool = False
    axis: str = "step"
    lines_of: Callable[[Sequence[Row]], Sequence[Line]] | None = None
    now_of: Callable[[Sequence[Line]], str] | None = None

    def lines(self, rows: Sequence[Row]) -> Sequence[Line]:
        """The lines of its chart that have a value at all."""
        if self.lines_of is not None:
            return self.lines_of(rows)
        series = {name: numbers(rows, *path) for name, path in self.paths.items()}
        return [
            Line(name, [step for step, _ in points], [value for _, value in points])
            for name, points in series.items()
            if points
        ]

    def now(self, lines: Sequence[Line]) -> str:
        """Its numbers at the end and at the start, in words."""
        if self.now_of is not None:
            return self.now_of(lines)
        parts = []
        for line in lines:
            first, last = (short_text(line.values[at]) for at in (0, -1))
            start = f", from {first} at step {line.places[0]:g}" if len(line.values) > 1 else ""
            name = f"{line.name} " if len(self.paths) > 1 else ""
            parts.append(f"{name}{last} at step {line.places[-1]:g}{start}")
        return "; ".join(parts) + "."


@cache
def all_diagnostics() -> tuple[Diagnostic, ...]:
    """Every diagnostic of the files in `diagnostics/`, by the files' names."""
    names = sorted(module.name for module in pkgutil.iter_modules(diagnostics.__path__))
    modules = [import_module(f"{diagnostics.__name__}.{name}") for name in names]
    return tuple(diagnostic for module in modules for diagnostic in module.DIAGNOSTICS)


def is_diagnosed(config: TrainConfig) -> bool:
    """Whether a run of these settings is diagnosed at all."""
    return 0 < config.diagnose_every <= config.steps


def find_warnings(rows: Sequence[Row], config: TrainConfig) -> list[Warned]:
    """The warnings of a run after its last diagnosis so far; none where nothing is wrong.

    Args:
        rows: lines of `diagnostics.jsonl`, in order.
        config: the run's settings.
    """
    warnings = [diagnostic.warn(rows) for diagnostic in all_diagnostics() if diagnostic.applies(config)]
    return [warning for warning in warnings if warning is not None]


def warnings_of(path: Path, config: TrainConfig) -> list[Warned]:
    """The warnings of a run's last diagnosis; none where it was not diagnosed.

    Args:
        path: its `diagnostics.jsonl`.
        config: its settings.
    """
    rows = read_looks(path) if is_diagnosed(config) else []
    return [Warned.model_validate(warning) for warning in rows[-1].get("warnings") or []] if rows else []


def numbers(rows: Sequence[Row], *path: str) -> list[tuple[int, float]]:
    """Step and value of every row that has a finite number there, as `numbers(rows, "divergence", "nats")`."""
    points = []
    for row in rows:
        value: Any = row
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, (int, float)) and math.isfinite(value):
            points.append((int(row["step"]), float(value)))
    return points


def left(values: Sequence[float], healthy: Callable[[float], bool]) -> bool:
    """Whether a number that belongs to single updates has left its range: in the last diagnosis, or in most.

    A run that ends gently, with a falling learning rate, is not excused for what went before.
    """
    outside = [not healthy(value) for value in values]
    return bool(outside) and (outside[-1] or 2 * sum(outside) > len(outside))


def how_often(values: Sequence[float], healthy: Callable[[float], bool]) -> str:
    """ "in 3 of 4 diagnoses"."""
    count = len(values)
    return f"in {sum(not healthy(value) for value in values)} of {count} diagnos{'es' if count != 1 else 'is'}"


def short_text(value: float) -> str:
    """Three digits, or a whole number where it is large."""
    return number_text(value, ",.0f") if abs(value) >= 1000 else number_text(value)
