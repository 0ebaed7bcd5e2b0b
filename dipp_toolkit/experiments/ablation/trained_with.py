"""What a cell was trained with, settings and content of files: its numbers are never shown for anything else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ...config import TrainConfig, make_config
from ...rewards.code_digests import source_digest
from ...training.run_state.start_settings import as_begun, read_begun_settings
from ...utils.atomic import write_text
from ...utils.content_digests import path_digest
from ...utils.json_files import read_json
from ...utils.messages import quoted, shown
from ...utils.paths import is_there, user_path

WITHOUT_EFFECT = frozenset(
    {
        "checkpoint_every", "device", "diagnose_every", "keep_checkpoints", "out", "prompt_cache", "push_to_hub",
        "resume", "sample_every", "trackers",
    }
)  # fmt: skip
"""Settings that change no number of a finished training but its last bits."""


def contents_of(config: TrainConfig) -> dict[str, str]:
    """Digests of the files and folders that settings name: code with what it imports, prompts, pipelines."""
    digests: dict[str, str] = {}
    for name in _names(config):
        for part in (name, name.rpartition("@")[0], name.rpartition("@")[2], name.partition("?")[0]):
            path = _path(part) or _path(part.rpartition(":")[0])
            if path is None:
                continue
            final = path / "final"
            source = path.suffix == ".py" and path.is_file()
            digest = source_digest(path) if source else path_digest(final if final.is_dir() else path)
            if digest:
                digests[name] = digest
            break
    return digests


def _names(config: TrainConfig) -> Iterator[str]:
    single = (config.generator, config.reference, config.prompts, config.eval_prompts, config.judge, config.decoder)
    yield from filter(None, single)
    yield from (*config.rewards, *config.terms)
    for options in (*config.reward_options.values(), *config.term_options.values()):
        yield from (value for value in options.values() if isinstance(value, str))


def _path(text: str) -> Path | None:
    return user_path(text) if text and is_there(text) else None


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
    saved, now = read_json(contents), contents_of(config)
    for name in sorted(saved.keys() | now.keys()):
        if saved.get(name) != now.get(name):
            yield f"the content of {shown(name)} has changed since"
