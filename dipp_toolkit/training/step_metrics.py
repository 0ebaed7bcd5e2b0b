"""What is written of a step to `metrics.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..config import TrainConfig
from ..distributed import Processes
from ..objective.base import uses_assistant
from ..objective.evaluate import WeightedTerm
from .engine import ObjectiveResult


def divergence_of(terms: Sequence[WeightedTerm]) -> str | None:
    """The name of the objective's divergence: its first term that looks at the assistant."""
    return next((one.name for one in terms if uses_assistant(one.term)), None)


def step_metrics(result: ObjectiveResult, assistant_loss: float, divergence: str | None) -> dict[str, float]:
    """The numbers of one step for `metrics.jsonl`, the machine's measurements aside.

    Args:
        result: what the objective said, its numbers read.
        assistant_loss: mean loss of the assistant's updates; left out where nothing looks at the assistant.
        divergence: name of the term whose value is the divergence.
    """
    means = result.means
    row = {"divergence" if name == divergence else name: means[name] for name in result.results}
    row |= {f"reward/{name}": means[f"scores/{name}"] for one in result.results.values() for name in one.scores}
    row |= {f"{key}/{name}": value for name, one in result.results.items() for key, value in one.details.items()}
    row |= result.details
    row |= {f"grad_norm/{name}": value for name, value in result.norms.items()}
    row |= {f"cosine/{name}": value for name, value in result.cosines.items()}
    if divergence is not None:
        row["assistant_loss"] = assistant_loss
    # Of a skipped update only what is a number is known.
    return {name: float(value) for name, value in row.items() if math.isfinite(value)}


def scheduled_numbers(config: TrainConfig, step: int) -> dict[str, float]:
    """What the settings' schedules said at an update, the first being 0."""
    row = {} if config.guidance_schedule is None else {"guidance": config.guidance_at(step)}
    scale = config.scale_by_step
    return row if scale is None else row | {"scale_factor": scale(step)}


def mean_row(processes: Processes, row: dict[str, float]) -> dict[str, float]:
    """The mean of all processes' numbers of a step: those of the whole batch."""
    if processes.alone:
        return row
    rows = processes.tell(row)
    shared = [name for name in row if all(name in one for one in rows)]
    return {name: sum(one[name] for one in rows) / len(rows) for name in shared}
