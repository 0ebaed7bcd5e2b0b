"""Parts of a run that are objects of Python and no names: lent to the registry for the time of a run.

Everything that follows knows them by a name, as it knows a plugin's parts: settings, checks, reports, checkpoints. What
a run's `config.yaml` cannot rebuild of them stands in its first lines, and a run that resumes is told what it misses.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config import TrainConfig
from ...errors import RequestError
from ...registry import GIVEN, Entry, get_registry
from ...utils.exception_text import raised
from ...utils.messages import shown

WORDS = {"prompts": "prompt set"}
"""What people call a kind where that is not its name."""


@dataclass(frozen=True)
class GivenPart:
    """An object that is a part of a run.

    Attributes:
        kind: `"generator"`, `"reference"`, `"reward"` or `"prompts"`.
        name: what the run calls it.
        thing: the object, as the registry's factories return it.
        copied: whether each run works with a copy, so that what was given stays as it is.
    """

    kind: str
    name: str
    thing: Any
    copied: bool = False

    @property
    def entry(self) -> Entry:
        """It as a registered name."""
        from ...protocols import Reloadable  # it imports torch, which checking names alone does not need

        reloadable = isinstance(self.thing, Reloadable)
        maker = (_ReloadableMaker if reloadable else _Maker)(self)
        return Entry(self.kind, self.name, maker, f"{_kind_of(self.thing)}, {GIVEN}", (), GIVEN, described=self.thing)


@dataclass(frozen=True)
class _Maker:
    """The factory of a given part."""

    part: GivenPart

    def __call__(self) -> Any:
        if not self.part.copied:
            return self.part.thing
        try:
            return copy.deepcopy(self.part.thing)
        except Exception as error:
            raise RequestError(
                f"The {self.part.kind} '{self.part.name}' cannot be copied: {raised(error)}. A run trains a copy; let "
                "copy.deepcopy work on it, or name its class as file.py:Name."
            ) from error


@dataclass(frozen=True)
class _ReloadableMaker(_Maker):
    """The factory of a generator that loads what it saved."""

    def load_pretrained(self, folder: Path, **options: Any) -> Any:
        return self.part.thing.load_pretrained(folder, **options)


@contextmanager
def lent(parts: Sequence[GivenPart]) -> Iterator[None]:
    """Inside this context the parts have their names.

    Raises:
        RequestError: a name is taken.
    """
    with get_registry().lent([part.entry for part in parts]):
        yield


def given_in(config: TrainConfig) -> list[Entry]:
    """The parts of a run that its settings name and that are lent to the registry."""
    registry = get_registry()
    rewards = (*config.rewards, *config.floors, *config.monitor_rewards, *filter(None, [config.judge]))
    named = [("generator", config.generator), ("reference", config.reference)]
    named += [("reward", name) for name in rewards]
    named += [("prompts", name) for name in (config.prompts, config.eval_prompts)]
    entries = [registry.entries[kind].get(name or "") for kind, name in dict.fromkeys(named)]
    return [entry for entry in entries if entry is not None and entry.plugin == GIVEN]


def described(entries: Sequence[Entry]) -> dict[str, str]:
    """What each of them is, by kind and name: `{"reward 'blueness'": "a function, given in Python"}`."""
    return {f"{WORDS.get(entry.kind, entry.kind)} '{entry.name}'": entry.summary for entry in entries}


def heading(config: TrainConfig) -> str:
    """The first lines of a `config.yaml`, as comments, where it does not say all; empty where it does."""
    given = described(given_in(config))
    if not given:
        return ""
    lines = [f"#   the {what} ({shown(kind)})" for what, kind in given.items()]
    return "\n".join(
        ["# These settings alone cannot rebuild the run. Give train() again, under the same names:", *lines, ""]
    )


def check_given_again(config: TrainConfig, folder: Path) -> None:
    """Refuse to resume a run without the objects that it was begun with.

    Args:
        config: settings of the run that resumes.
        folder: the run's.

    Raises:
        RequestError: as a sentence that names what is missing.
    """
    begun = given_then(folder)
    missing = {what: kind for what, kind in begun.items() if what not in described(given_in(config))}
    if missing:
        listed = ", ".join(f"the {shown(what)} ({shown(kind)})" for what, kind in missing.items())
        raise RequestError(
            f"The run in {shown(folder)} was begun in Python with objects that no file holds: {listed}. Give them "
            f"again in Python, under the same names: train(resume=True, out={str(folder)!r}, ...)."
        )


def given_then(folder: Path) -> Mapping[str, str]:
    """What the run in a folder was given as objects, as `described` has it; nothing where its record does not say."""
    try:
        content = json.loads((folder / "begun.json").read_text(encoding="utf-8"))
        given = content.get("given", {})
    except (OSError, ValueError, AttributeError, RecursionError):  # whoever reads the record itself reports that
        return {}
    return {str(what): str(kind) for what, kind in given.items()} if isinstance(given, dict) else {}


def _kind_of(thing: Any) -> str:
    if isinstance(thing, Sized):
        return f"{len(thing):,} of them"
    name = type(getattr(thing, "function", thing)).__name__
    return "a function" if name == "function" else f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
