"""What names stand for on this machine: digests of the files and folders that settings name.

By them it is noticed that a folder's weights were exchanged while its name stayed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..models.files.saved_generators import DIFFUSERS
from ..registry import get_registry
from ..rewards.code_digests import source_digest
from ..utils.content_digests import path_digest
from ..utils.fingerprint import digest_of
from ..utils.paths import is_there, user_path

BETWEEN = re.compile(r"[@?+]")
"""Between the parts of a name, each of which may be a path: `CODE@FOLDER`, `FILE?OPTIONS`, `PIPELINE+NETWORK`."""
BEHIND = re.compile(r"(?:=[^=/]*|:[^:/]*)$")
"""What may stand behind a path: a LoRA's scale, or the name of an object of Python."""


def contents_of(config: TrainConfig) -> dict[str, str]:
    """Digests of the files and folders that settings name: code with what it imports, prompts, pipelines, weights."""
    return digests_of([*names_of(config), *filter(None, (config.prompts, config.eval_prompts))])


def names_of(config: TrainConfig) -> Iterator[str]:
    """What settings name that a number depends on, prompts apart."""
    single = (config.generator, config.reference, config.judge, config.decoder, config.weights, config.assistant_model)
    yield from filter(None, single)
    yield from (*config.lora, *config.rewards, *config.floors, *config.terms)
    for options in (*config.reward_options.values(), *config.term_options.values()):
        yield from texts_in(options)


def texts_in(value: Any) -> Iterator[str]:
    """All texts among the values of a setting."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from texts_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from texts_in(inner)


def digests_of(names: Iterable[str]) -> dict[str, str]:
    """The digest of each name that stands for files of this machine.

    A run's folder counts by its finished generator. Large files are read once, and again when they have changed.
    """
    digests = {}
    for name in dict.fromkeys(names):
        found = [digest for path in _paths(name) if (digest := _digest(path))]
        if found:
            digests[name] = found[0] if len(found) == 1 else digest_of(found)
    return digests


def _paths(name: str) -> list[Path]:
    whole = _path(name)
    parts = [name] if whole is not None else BETWEEN.split(name)
    return [path for part in parts if (path := _path(part) or _path(BEHIND.sub("", part))) is not None]


def _path(text: str) -> Path | None:
    text = text.removeprefix(DIFFUSERS)
    return user_path(text) if text and is_there(text) and not _is_registered(text) else None


def _is_registered(name: str) -> bool:
    """Whether a plugin has a part of this name: it is that part, whatever lies in the working folder."""
    return any(name in entries for entries in get_registry().entries.values())


def _digest(path: Path) -> str | None:
    if path.suffix == ".py" and path.is_file():
        return source_digest(path)
    final = path / "final"
    return path_digest(final if final.is_dir() else path)
