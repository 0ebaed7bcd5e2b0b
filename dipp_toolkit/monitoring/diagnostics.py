"""All diagnostics at once: which of them have left their ranges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..config import TrainConfig
from ..events import Warned
from ..utils.jsonl import read_rows
from . import agreement, divergence, lag, pull, sample_colours
from .ranges import Row


def is_diagnosed(config: TrainConfig) -> bool:
    """Whether a run of these settings is diagnosed at all."""
    return 0 < config.diagnose_every <= config.steps


def find_warnings(rows: Sequence[Row], config: TrainConfig) -> list[Warned]:
    """What is to be said of a run after its last diagnosis so far; none where nothing is wrong.

    Args:
        rows: lines of `diagnostics.jsonl`, in order.
        config: the run's settings.
    """
    found = [divergence.warning(rows), lag.warning(rows)]
    if config.rewards:  # floors alone are meant to rest
        found += [pull.warning(rows), agreement.warning(rows)]
    if config.generator is not None:  # a run that starts from the reference's own network starts blurred
        found.append(sample_colours.warning(rows))
    return [one for one in found if one is not None]


def warnings_of(path: Path, config: TrainConfig) -> list[Warned]:
    """What the last diagnosis of a run said; none where it was not diagnosed.

    Args:
        path: its `diagnostics.jsonl`.
        config: its settings.
    """
    rows = read_rows(path) if is_diagnosed(config) else []
    return [Warned.model_validate(one) for one in rows[-1].get("warnings", [])] if rows else []
