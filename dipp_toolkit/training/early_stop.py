"""When warnings end a run, and what is said then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import TrainConfig
from .run_state.checkpoint import checkpoint_step, checkpoints
from .run_state.run_folder import RunFolder


@dataclass(frozen=True)
class Stop:
    """Why a run ended before its last step.

    Attributes:
        step: its last one; the exported weights are those of this step.
        warnings: names of those that ended it.
        last_without: the last measured step without any warning.
        text: all of it as sentences.
    """

    step: int
    warnings: tuple[str, ...]
    last_without: int
    text: str

    def as_dict(self) -> dict[str, Any]:
        """As `summary.json` holds it."""
        return {
            "step": self.step,
            "warnings": list(self.warnings),
            "last_without": self.last_without,
            "text": self.text,
        }


def names_in(row: Mapping[str, Any]) -> set[str]:
    """Names of the warnings of one measurement."""
    return {warning["name"] for warning in row["warnings"]}


def in_a_row(rows: Sequence[Mapping[str, Any]], name: str) -> int:
    """How many of the newest measurements in a row had this warning."""
    count = 0
    for row in reversed(rows):
        if name not in names_in(row):
            break
        count += 1
    return count


def stop_of(rows: Sequence[Mapping[str, Any]], config: TrainConfig, folder: RunFolder) -> Stop | None:
    """The stop that these measurements demand: a warning of `stop_on` in the newest `monitor_patience`; or None.

    Args:
        rows: the lines of `monitors.jsonl` so far.
        config: what stops the run, and how many measurements it takes.
        folder: whose checkpoints are named.
    """
    patience = config.monitor_patience
    fired = tuple(name for name in config.stop_on if in_a_row(rows, name) >= patience)
    if not fired:
        return None
    step = int(rows[-1]["step"])
    clean = max((int(row["step"]) for row in rows if not row["warnings"]), default=0)
    often = f"in {patience} measurements in a row" if patience > 1 else "seen"
    text = (
        f"Stopped early at step {step} of {config.steps}: {' and '.join(fired)} {often}. The exported generator is "
        f"that of step {step}. {_last_clean(clean, config, folder)} To go on from here nevertheless: "
        f"dipp train --resume --out {folder.path} --set stop_on="
    )
    return Stop(step, fired, clean, text)


def _last_clean(step: int, config: TrainConfig, folder: RunFolder) -> str:
    if not step:
        return "Every measurement since the start had a warning; lower reward_scale."
    sentence = f"Step {step} was the last measurement without a warning"
    kept = [path for path in checkpoints(folder.checkpoints) if 0 < (checkpoint_step(path) or 0) <= step]
    if not kept:
        return f"{sentence}; no checkpoint from then is kept (keep_checkpoints, checkpoint_every)."
    return f"{sentence}; the checkpoint {kept[-1].name} is the nearest one kept before it."
