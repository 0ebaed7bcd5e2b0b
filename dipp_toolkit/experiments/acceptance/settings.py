"""From a name and a few words to the settings of an acceptance: those recommended with it, and those of a short run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ...config import TrainConfig, make_config
from ...errors import RequestError
from ...models.files.saved_generators import split_saved
from ...registry import get_registry
from ...training.setup.name_checks import check_pipeline
from ...training.setup.resolve import resolve, with_recommended
from ...utils.imports import is_python_name
from ...utils.messages import shown
from ...utils.paths import is_there, user_path
from ...utils.setting_layers import over

THINGS = ("a red fox", "an old sailor", "a glass teapot", "a yellow bicycle", "two small dogs", "a wooden house",
    "a bowl of oranges", "a blue butterfly")  # fmt: skip
SCENES = ("in the snow", "on a sandy beach", "in a quiet library", "under a starry sky", "in a green meadow",
    "beside a river", "as an oil painting", "in front of a brick wall")  # fmt: skip

PROMPTS = tuple(f"{thing} {scene}" for thing, scene in product(THINGS, SCENES))
"""The 64 of them."""


REWARDS: dict[str, float] = {"hps": 1.0, "imagereward": 1.0}
"""Of names that recommend none."""

SHORT: dict[str, Any] = {
    "steps": 60,
    "warmup": 0,
    "cooldown": 0,
    "assistant_warmup": 16,
    "ema": 0.9,
    "eval_count": 64,
    "monitor_every": 0,
    "diagnose_every": 0,
}
"""Of an alignment that takes minutes. Its average is short, so that it has followed the generator by the end."""

FAST: dict[str, float] = {"learning_rate": 1e-4, "assistant_learning_rate": 2e-4}
"""Of adapters in so few updates, where less is recommended for a run of thousands."""

FIXED: dict[str, Any] = {"resume": False, "push_to_hub": None, "trackers": (), "out": None}
"""Settings that mean nothing here."""


@dataclass(frozen=True)
class Candidate:
    """What is to be accepted.

    Attributes:
        name: a registered generator or reference, a folder, or a hub id.
        reference: named beside it; None for the recommended one.
        rewards: with their weights, as `--reward` takes them; None for those recommended.
        prompts: a set or a file; None for those recommended.
        device: as of `TrainConfig`.
        settings: those that `--set` gives.
    """

    name: str
    reference: str | None = None
    rewards: str | None = None
    prompts: str | None = None
    device: str = "auto"
    settings: Mapping[str, Any] | None = None

    @property
    def kind(self) -> str:
        """`"generator"` or `"reference"`, of which a generator is begun."""
        entries = get_registry().entries
        if self.reference is not None or self.name in entries["generator"]:
            return "generator"
        if self.name in entries["reference"]:
            return "reference"
        place = self.name.removeprefix("diffusers:")
        return "generator" if is_there(place) and _is_run(user_path(place)) else "reference"

    @property
    def public_name(self) -> str:
        """The name as others may read it: a folder of somebody's own is a folder."""
        return public_name(self.name)


def _is_run(folder: Path) -> bool:
    """Whether a folder is a training's, or the generator that one left in it."""
    return any((place / "config.yaml").is_file() for place in (folder, folder.parent))


def public_name(name: str) -> str:
    """A registered name or a hub id as it is; anything else as the kind of thing that it is."""
    entries = get_registry().entries
    if any(name in entries[kind] for kind in ("generator", "reference", "reward", "prompts")):
        return name
    plain = name.removeprefix("diffusers:")
    if is_there(plain):
        return "a folder" if user_path(plain).is_dir() else "a file"
    if is_python_name(name):
        return "own code"
    return plain if not plain.startswith(("/", "~", ".", "\\")) else "a folder"


def public_term(name: str) -> str:
    """A term's name in the metrics likewise; that of a reward's has the reward's name behind a slash."""
    kind, slash, own = name.partition("/")
    return f"{kind}{slash}{public_name(own)}" if slash else public_name(name)


def settings_of(candidate: Candidate, scratch: Path) -> TrainConfig:
    """The settings of an acceptance.

    Args:
        candidate: what is to be accepted.
        scratch: where a file of prompts is written, if the name recommends none.

    Raises:
        RequestError: a name or a setting cannot be used, or the name is that of somebody's own code.
    """
    own, place = split_saved(candidate.name)
    if is_python_name(own) or place is not None:
        raise RequestError(
            f"{shown(candidate.name)} is code of your own, and has no files that others could compare. Name a "
            "registered generator or reference, a pipeline's or run's folder, or a hub id."
        )
    check_pipeline(candidate.name, "generator", *(() if candidate.kind == "generator" else ("reference",)))
    given: dict[str, Any] = {candidate.kind: candidate.name, "device": candidate.device, **(candidate.settings or {})}
    for name, value in FIXED.items():
        if given.get(name, value) != value:
            raise RequestError(f"--set {name} cannot be set for an acceptance, which only writes one row.")
    for name, value in (
        ("reference", candidate.reference),
        ("rewards", candidate.rewards),
        ("prompts", candidate.prompts),
    ):
        if value is not None:
            given[name] = value
    recommended = with_recommended(make_config(given))
    short = dict(SHORT)
    if recommended.mode == "lora":
        short |= {name: value for name, value in FAST.items() if getattr(recommended, name) < value}
    if not recommended.rewards:
        short["rewards"] = REWARDS
    if recommended.prompts is None:
        file = scratch / "prompts.txt"
        file.write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
        short["prompts"] = str(file)
    return resolve(make_config(over(short, given)))
