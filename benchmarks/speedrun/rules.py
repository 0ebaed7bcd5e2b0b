"""What an entry may set and what it may not: the rules of `README.md`, as far as a program can hold them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dipp_toolkit import RequestError, TrainConfig, load_prompts
from dipp_toolkit.config import make_config
from dipp_toolkit.protocols import texts
from dipp_toolkit.registry import get_registry
from dipp_toolkit.training.setup.resolve import resolve
from dipp_toolkit.utils.assignments import is_isolated_name, is_remote_name
from dipp_toolkit.utils.imports import is_python_name
from dipp_toolkit.utils.messages import shown
from dipp_toolkit.utils.paths import looks_like_path, user_path
from dipp_toolkit.utils.yaml_loader import load_yaml

EVERY = 2
"""Generator updates from one look to the next."""
SEEDS = 3
"""Runs of an entry, seeds 0, 1 and 2."""
HELD_OUT = "emoji-heldout"
JUDGE = "emoji-judge"

RULES = {
    "start": "every run begins with the world's distilled generator and its reference, and makes images in one step",
    "looks": "judge, held-out prompts and the points at which a run is looked at are the same for every entry",
    "run": "seeds, folders, checkpoints and the device are the benchmark's",
    "settings": "an entry is settings alone, which anybody can run as they stand",
    "held-out": "nothing is trained on the held-out prompts",
    "judge": "the judge is never trained on",
}
"""By the names that `README.md` gives them."""

FIXED = {
    "start": (
        "generator", "reference", "parts", "weights", "lora", "readout", "input_scale", "generator_steps", "recipe",
        "guidance_embedding",
    ),
    "looks": (
        "judge", "eval_prompts", "eval_count", "eval_seeds", "reference_steps", "reference_guidance", "monitor_every",
        "monitor_count", "monitor_rewards", "monitor_patience", "stop_on", "diagnose_every", "sample_every",
    ),
    "run": (
        "seed", "out", "resume", "checkpoint_every", "keep_checkpoints", "push_to_hub", "trackers", "device",
        "prompt_cache", "deterministic",
    ),
    "settings": ("decoder",),
}  # fmt: skip
"""Settings that no entry may have, by the rule that says so."""


class RuleError(RequestError):
    """An entry breaks a rule."""

    def __init__(self, what: str, rule: str):
        super().__init__(f"{what}: {RULES[rule]} (the rule '{rule}' of benchmarks/speedrun/README.md). Leave it out.")


@dataclass(frozen=True)
class World:
    """What a race is run in, by name.

    Attributes:
        name: of the world.
        generator: the distilled start.
        reference: the teacher.
    """

    name: str
    generator: str
    reference: str

    @classmethod
    def named(cls, name: str) -> World:
        """The world whose generator and reference have names that begin so."""
        return cls(name, f"{name}-onestep", f"{name}-reference")


@dataclass(frozen=True)
class Entry:
    """Settings that take part.

    Attributes:
        name: of its file.
        text: the file's.
        settings: what it sets, under flat names.
        threads: of torch's operators.
    """

    name: str
    text: str
    settings: dict[str, Any]
    threads: int = 1

    @classmethod
    def read(cls, path: Path, threads: int = 1) -> Entry:
        """The entry in a YAML file, which may be empty but for comments.

        Raises:
            RequestError: the file is missing or no mapping, or a setting is unknown or out of range.
        """
        values = load_yaml(path, "entry")
        if values is not None and not isinstance(values, dict):
            raise RequestError(f"The entry {shown(path)} is not a mapping; expected settings, as in 'steps: 60'.")
        config = make_config(values or {})
        settings = {name: getattr(config, name) for name in TrainConfig.model_fields if name in config.model_fields_set}
        return cls(path.stem, path.read_text(encoding="utf-8"), settings, threads)

    def config(self, world: World, seed: int, folder: Path) -> TrainConfig:
        """The settings of its run of one seed, in a folder that keeps all of it."""
        fixed = {
            "generator": world.generator, "reference": world.reference, "judge": JUDGE, "eval_prompts": HELD_OUT,
            "eval_count": 2, "reference_steps": 1, "monitor_every": 0, "diagnose_every": 0, "sample_every": 10**6,
            "seed": seed, "out": folder / "run", "prompt_cache": folder / "prompts", "checkpoint_every": EVERY,
            "device": "cpu",
        }  # fmt: skip
        return make_config({**self.settings, **fixed})

    def resolved(self, world: World) -> dict[str, Any]:
        """All settings of its runs that are not the toolkit's plain defaults, recommended ones included."""
        written = resolve(self.config(world, 0, Path("runs") / "speedrun" / "resolved")).model_dump(mode="json")
        plain = make_config({}).model_dump(mode="json")
        places = ("out", "prompt_cache", "seed")
        return {name: value for name, value in written.items() if name not in places and value != plain.get(name)}

    def check(self, world: World) -> None:
        """Hold the entry against the rules, and its settings against each other.

        Raises:
            RuleError: it breaks a rule.
            RequestError: its settings cannot be used.
        """
        for rule, names in FIXED.items():
            for name in names:
                if name in self.settings:
                    raise RuleError(f"The setting {name} cannot be part of an entry", rule)
        config = make_config(self.settings)
        _check_rewards(config)
        _check_code(config)
        _check_prompts(config)
        self.resolved(world)


def _check_rewards(config: TrainConfig) -> None:
    for name in (*config.rewards, *config.floors):
        if name == JUDGE:
            raise RuleError(f"The reward {name} cannot be part of an entry", "judge")
    for owner, options in config.reward_options.items():
        if options.keys() - {"latent"}:
            raise RuleError(
                f"Options of the reward {shown(owner)} other than latent cannot be part of an entry", "settings"
            )


def _check_code(config: TrainConfig) -> None:
    for name in (*config.rewards, *config.floors, *config.terms, config.prompts or ""):
        if is_python_name(name) or is_remote_name(name) or is_isolated_name(name):
            raise RuleError(
                f"{shown(name)} names code, a server or an environment and cannot be part of an entry", "settings"
            )
    for text in _texts(config.term_options):
        if looks_like_path(text) or user_path(text).exists():
            raise RuleError(
                f"The option {shown(text)} of a term names a file and cannot be part of an entry", "settings"
            )


def _texts(value: Any) -> Iterator[str]:
    """All texts inside of nested options."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)


def _check_prompts(config: TrainConfig) -> None:
    if config.prompts is None:
        return
    if config.prompts.partition("?")[0] not in get_registry().entries["prompts"]:
        raise RuleError(
            f"The prompts {shown(config.prompts)} are no registered set and cannot be part of an entry", "settings"
        )
    shared = set(texts(load_prompts(config.prompts))) & set(texts(load_prompts(HELD_OUT)))
    if shared:
        raise RuleError(f"The prompts {shown(config.prompts)} hold {shown(min(shared))}, which is held out", "held-out")
