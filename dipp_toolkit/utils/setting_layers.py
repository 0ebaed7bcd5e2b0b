"""Settings in layers and in groups: whatever is said later goes before what was said below it, however it is spelled.

A setting of a group has two names. `monitor.every` is for people, on its own or nested as `monitor: {every: 50}`; the
flat `monitor_every` is what `TrainConfig` stores and `config.yaml` holds, so that every version reads every run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

AUTO_SCALE = "auto"
"""The `reward_scale` that is measured for a pull."""
OPTIONS = ("reward_options", "term_options")
"""Settings that hold options by owner and are laid over each other option by option."""


def _prefixed(group: str, *members: str) -> dict[str, str]:
    return {member: f"{group}_{member}" for member in members}


GROUPS: dict[str, dict[str, str]] = {
    "assistant": _prefixed("assistant", "model", "learning_rate", "rounds", "warmup", "time_sampling", "time_range"),
    "time": {"weighting": "weighting", **_prefixed("time", "sampling", "range")},
    "black_box": {"method": "black_box", **_prefixed("black_box", "pairs", "radius", "side", "trust", "rounds")},
    "latent": _prefixed("latent", "every", "rank", "cosine"),
    "lora": {"files": "lora", **_prefixed("lora", "rank", "alpha", "targets")},
    "decode": _prefixed("decode", "checkpointing", "tiling"),
    "checkpoint": {"every": "checkpoint_every", "keep": "keep_checkpoints"},
    "eval": {
        **_prefixed("eval", "prompts", "count", "seeds"),
        "reference_steps": "reference_steps",
        "reference_guidance": "reference_guidance",
    },
    "monitor": {**_prefixed("monitor", "every", "count", "rewards", "patience"), "stop_on": "stop_on"},
}
"""Flat names by group and by name within it. There is no group `reward`: `reward.NAME.OPTION` is a reward's option."""
FLAT = {f"{group}.{member}": name for group, members in GROUPS.items() for member, name in members.items()}
"""Flat names by grouped ones."""
GROUPED = {name: grouped for grouped, name in FLAT.items()}
"""Grouped names by flat ones."""


def flat_name(name: str) -> str:
    """`monitor_every` for `monitor.every`; any other name as it is."""
    return FLAT.get(name, name)


def spread(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, a group's mapping as one entry for each of its settings: `{"monitor.every": 50}`."""
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if name in GROUPS and isinstance(value, Mapping):
            plain |= {f"{name}.{member}": content for member, content in value.items()}
        else:
            plain[name] = value
    return plain


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by flat name.

    Raises:
        ValueError: one is given by both of its names.
    """
    flat: dict[str, Any] = {}
    for name, value in spread(values).items():
        if flat_name(name) in flat:
            raise ValueError(f"the setting {GROUPED[flat_name(name)]} is given twice, once as {flat_name(name)}")
        flat[flat_name(name)] = value
    return flat


def replace_in(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`low` with the settings of `high` replaced, whichever of their names either uses; every name stays as given."""
    low, high = spread(low), spread(high)
    given = {flat_name(name) for name in high}
    return {name: value for name, value in low.items() if flat_name(name) not in given} | high


def over(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of one layer over those of another: where either says how strongly the rewards pull, the upper one does.

    A pull stands against a scale as one setting against itself: in the upper layer it takes the lower one's place.
    """
    merged = replace_in(low, high)
    if high.get("pull") is not None and "reward_scale" not in high:
        merged["reward_scale"] = AUTO_SCALE
    elif high.get("reward_scale", AUTO_SCALE) != AUTO_SCALE and "pull" not in high:
        merged.pop("pull", None)
    return merged


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`high` over `low`; `reward_options` and `term_options` are merged option by option."""
    merged = over(low, high)
    for kind in OPTIONS:
        if isinstance(low.get(kind), dict) and isinstance(high.get(kind), dict):
            merged[kind] = {**low[kind], **high[kind]}
            for name, values in high[kind].items():
                if isinstance(low[kind].get(name), dict) and isinstance(values, dict):
                    merged[kind][name] = {**low[kind][name], **values}
    return merged
