"""What a cell was trained with, settings and content of files: its numbers are never shown for anything else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ...config import TrainConfig, make_config
from ...training.run_state.start_settings import as_begun, read_begun_settings
from ...utils.atomic import write_text
from ...utils.json_files import read_json
from ...utils.messages import quoted, shown
from ..named_contents import contents_of

WITHOUT_EFFECT = frozenset(
    {
        "checkpoint_every", "device", "diagnose_every", "keep_checkpoints", "out", "prompt_cache", "push_to_hub",
        "resume", "sample_every", "trackers",
    }
)  # fmt: skip
"""Settings that change no number of a finished training but its last bits."""


def note_contents(path: Path, config: TrainConfig) -> None:
    """Write what a training with these settings depends on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(contents_of(config), indent=1, sort_keys=True) + "\n")


def differences(folder: Path, contents: Path, config: TrainConfig) -> list[str]:
    """What a finished training was done with, and would be done with other now, in words.

    Args:
        folder: the run's.
        contents: from `note_contents`; a run of an older version has none, and its settings alone are known.
        config: the resolved settings asked for now.

    Raises:
        RequestError: one of its files cannot be read.
    """
    return [*_other_settings(folder, config), *_other_contents(contents, config)]


def _other_settings(folder: Path, config: TrainConfig) -> Iterator[str]:
    values = read_begun_settings(folder / "config.yaml")
    saved = {name: value for name, value in values.items() if name in TrainConfig.model_fields}
    before = make_config(saved)
    now = as_begun(config, before)
    for name in saved:
        old, new = getattr(before, name), getattr(now, name)
        if name not in WITHOUT_EFFECT and old != new:
            yield f"{name} was {quoted(old)} and is {quoted(new)}"


def _other_contents(contents: Path, config: TrainConfig) -> Iterator[str]:
    if not contents.is_file():
        return
    then = "Remove it, and the cell is known by its settings alone."
    saved, now = read_json(contents, then=then), contents_of(config)
    for name in sorted(saved.keys() | now.keys()):
        if saved.get(name) != now.get(name):
            yield f"the content of {shown(name)} has changed since"
