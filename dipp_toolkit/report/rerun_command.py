"""The commands that run a run again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..config import TrainConfig

FLAGS = {
    "recipe": "--recipe",
    "generator": "--generator",
    "reference": "--reference",
    "rewards": "--reward",
    "reward_for": "--reward-for",
    "floors": "--floor",
    "balance": "--balance",
    "kl_budget": "--kl-budget",
    "judge": "--judge",
    "prompts": "--prompts",
    "steps": "--steps",
    "batch_size": "--batch-size",
    "seed": "--seed",
}
"""Settings that have a flag of their own; the others go through `--set`."""
OPTIONS = {"reward_options": "reward", "term_options": "term"}
"""Settings that are given an option at a time, and what their names begin with then."""
LEFT_OUT = {"out", "resume", "reward_options", "term_options", "trackers"}


def setting_text(value: Any) -> str:
    """A setting's value as `--set` reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        nested = any(isinstance(content, dict) for content in value.values())
        sign, between = (": ", "; ") if nested else ("=", ",")
        return between.join(f"{name}{sign}{setting_text(content)}" for name, content in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(map(setting_text, value))
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value)


def option_text(value: Any) -> str:
    """The value of a reward's or a term's option as `--set` reads it, which is YAML: JSON where it holds others."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list, tuple)) else setting_text(value)


def _from_here(folder: Path) -> Path:
    """A folder relative to the working folder, where it is inside."""
    if folder.is_absolute() and folder.is_relative_to(Path.cwd()):
        return folder.relative_to(Path.cwd())
    return folder


def again_from_config(folder: Path) -> str:
    """The short command, from the run's own settings file into a new folder beside it."""
    shown = _from_here(folder)
    return f"dipp train --config {shlex.quote(str(shown / 'config.yaml'))} --out {shlex.quote(f'{shown}-again')}"


def new_run_with(folder: Path, saved: TrainConfig, asked: TrainConfig, names: Iterable[str]) -> str:
    """The command that begins a new run with a run's settings but for some.

    Args:
        folder: the run's.
        saved: its settings.
        asked: those of the new run.
        names: of the settings that differ.
    """
    parts = [f"dipp train --config {shlex.quote(str(_from_here(folder) / 'config.yaml'))}"]
    for name in names:
        if name == "recipe":  # the settings file says all of its settings, and those that differ are named
            continue
        before, value = getattr(saved, name), getattr(asked, name)
        if name in OPTIONS:
            parts += [
                f"--set {shlex.quote(f'{OPTIONS[name]}.{owner}.{option}={option_text(content)}')}"
                for owner, options in value.items()
                for option, content in options.items()
                if before.get(owner, {}).get(option) != content
            ]
        elif name in FLAGS and value not in (None, {}):
            parts.append(f"{FLAGS[name]} {shlex.quote(setting_text(value))}")
        else:
            parts.append(f"--set {shlex.quote(f'{name}={setting_text(value)}')}")
    return " ".join(parts)


def again_from_flags(config: TrainConfig) -> list[str]:
    """The long command, with every setting spelled out, one argument group a line."""
    settings = config.model_dump()
    parts = [f"dipp {'train' if config.rewards else 'distill'}"]
    for name, flag in FLAGS.items():
        if settings[name] not in (None, {}):
            parts.append(f"{flag} {shlex.quote(setting_text(settings[name]))}")
    for name, value in settings.items():
        if (
            name not in LEFT_OUT
            and not (name in FLAGS and value not in (None, {}))
            and name not in ("rewards", "reward_for", "floors")
        ):
            parts.append(f"--set {shlex.quote(f'{name}={setting_text(value)}')}")
    owners = {f"reward.{name}": options for name, options in config.reward_options.items()}
    owners |= {f"term.{name}": options for name, options in config.term_options.items()}
    for owner, options in owners.items():
        parts += [f"--set {shlex.quote(f'{owner}.{option}={option_text(value)}')}" for option, value in options.items()]
    return parts
