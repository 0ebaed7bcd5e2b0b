"""What a report reads: the files of a finished run folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ..config import TrainConfig, make_config
from ..errors import CheckpointError, RequestError
from ..utils.assignments import read_yaml
from ..utils.json_files import read_json
from ..utils.json_forms import in_form
from ..utils.jsonl import read_lines, read_looks
from ..utils.messages import Spelling

if TYPE_CHECKING:
    from ..evaluation.comparison import Comparison
    from .strips import Strip

COLUMN_ORDER = ("reference", "before", "after")
AGAIN = "Remove it and go on with the run by --resume, which writes it again."


class _Judge(BaseModel):
    name: str


class _Summary(BaseModel):
    """What a report takes from `summary.json`, where it is there: runs of earlier versions have less."""

    rewards: dict[str, dict[str, Any]] | None = None
    judge: _Judge | None = None
    gain: dict[str, Any] | None = None
    diversity: dict[str, Any] | None = None
    divergence: dict[str, Any] | None = None
    warnings: list[str] | None = None
    warned: list[str] | None = None
    given: dict[str, str] | None = None
    reference: str | None = None
    reference_steps: int | None = None


@dataclass(frozen=True)
class RunFiles:
    """The files of a run, read.

    Attributes:
        folder: the run folder.
        config: its settings.
        metrics: one mapping a step, in order; values that are not finite are left out.
        summary: what `summary.json` holds.
        comparison: images side by side, or None where the run has none.
        monitors: one mapping a look of the monitors, in order; none where they were off.
        diagnostics: one mapping a diagnosis, in order; none where the run was not diagnosed.
    """

    folder: Path
    config: TrainConfig
    metrics: Sequence[Mapping[str, float]]
    summary: Mapping[str, Any]
    comparison: Comparison | None
    monitors: Sequence[Mapping[str, Any]] = ()
    diagnostics: Sequence[Mapping[str, Any]] = ()

    @property
    def name(self) -> str:
        """The run folder's own name."""
        return self.folder.resolve().name

    @property
    def columns(self) -> list[str]:
        """Columns that have numbers or images: the reference, before, after, then any other."""
        columns = [*(self.comparison.images if self.comparison else ()), *(self.summary.get("diversity") or {})]
        for scores in (self.summary.get("rewards") or {}).values():
            columns += scores
        names = list(dict.fromkeys(columns))
        return [name for name in COLUMN_ORDER if name in names] + [name for name in names if name not in COLUMN_ORDER]

    @cached_property
    def spelling(self) -> Spelling:
        """How the report spells the names of generator, reference, rewards, judge and terms."""
        config, judge = self.config, self.summary.get("judge")
        names = [*config.rewards, *config.floors, *(self.summary.get("rewards") or {}), *config.monitor_rewards]
        names += [str(judge["name"])] if isinstance(judge, Mapping) and "name" in judge else []
        names += [name for row in self.monitors for name in row.get("rewards") or {}]
        return Spelling([config.generator or "", config.reference or "", *names, *config.terms])

    @cached_property
    def strips(self) -> list[Strip]:
        """The prompts that picture and page show, by what the run recorded of their scores; none without images."""
        from .shown_prompts import choose_prompts, recorded_prompts
        from .strips import strips_of

        if self.comparison is None or not self.comparison.images:
            return []
        prompts = self.comparison.prompts
        shown = recorded_prompts(self.summary.get("picture"), len(prompts)) or choose_prompts(prompts, None)
        return strips_of(shown, prompts, self.spelling.name)

    @property
    def reference_steps(self) -> int:
        """Sampling steps of the reference in the comparison."""
        return int(self.summary.get("reference_steps") or self.config.reference_steps)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of `metrics.jsonl` by rising step; of two rows of one step the later counts, and a line cut off at the
    file's end is passed over. A missing file has no rows.

    Raises:
        CheckpointError: another line is damaged.
    """
    lines = read_lines(path)
    rows: dict[int, dict[str, float]] = {}
    for number, line in lines:
        try:
            row = json.loads(line)
            step = int(row["step"])
            numbers = {name: float(value) for name, value in row.items() if isinstance(value, (int, float))}
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
            if number == lines[-1][0]:
                break
            raise CheckpointError(
                f"Line {number} of {path} is damaged; expected one JSON object with a step."
            ) from None
        rows[step] = {name: value for name, value in numbers.items() if math.isfinite(value)}
    return [rows[step] for step in sorted(rows)]


def read_run(folder: Path) -> RunFiles:
    """Read a finished run folder.

    Raises:
        CheckpointError: it is not a finished run folder, or one of its files is damaged.
    """
    from ..evaluation.comparison import INDEX, Comparison

    config, summary = folder / "config.yaml", folder / "summary.json"
    if not config.is_file():
        raise CheckpointError(f"{folder} is not a run folder: it has no config.yaml.")
    if not summary.is_file():
        raise CheckpointError(f"The run {folder} is not finished: it has no summary.json. Continue it with --resume.")
    try:
        numbers = read_json(summary, then=AGAIN)
        in_form(numbers, _Summary, str(summary), AGAIN)
    except RequestError as error:
        raise CheckpointError(str(error)) from error
    images = folder / "samples" / "comparison"
    return RunFiles(
        folder,
        make_config(read_yaml(config)),
        read_metrics(folder / "metrics.jsonl"),
        numbers,
        Comparison.load(images) if (images / INDEX).is_file() else None,
        read_looks(folder / "monitors.jsonl"),
        read_looks(folder / "diagnostics.jsonl"),
    )
