"""The files the monitors keep in a run folder: `monitors.jsonl`, a line a look, and what looks are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..evaluation.intervals import mean_interval, paired_interval
from ..events import Warned
from ..utils.atomic import write_tensors
from .snapshot import Snapshot

COLOURS = ("saturation", "contrast", "clipped")
PARTS = ("start", "reference")


@dataclass(frozen=True)
class Bases:
    """What looks are compared with.

    Attributes:
        start: the generator before training.
        reference: the multi-step reference, of the same prompts and noises; None before anything was compared with it.
    """

    start: Snapshot
    reference: Snapshot | None = None


def write_bases(path: Path, bases: Bases, about: str) -> None:
    """Write both snapshots; `about` identifies what they are of, and must be the same when they are read."""
    tensors: dict[str, Tensor] = {}
    for part in PARTS:
        snapshot: Snapshot | None = getattr(bases, part)
        if snapshot is None:
            continue
        tensors |= {f"{part}/rewards/{name}": values for name, values in snapshot.rewards.items()}
        tensors |= {f"{part}/{name}": getattr(snapshot, name) for name in COLOURS}
        if snapshot.diversity is not None:
            tensors[f"{part}/diversity"] = snapshot.diversity
    write_tensors(path, tensors, {"about": about})


def read_bases(path: Path, about: str) -> Bases | None:
    """What `write_bases` wrote, or None where it is missing, damaged, or of something else: it can be made again."""
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("about") != about:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        there = [part for part in PARTS if f"{part}/{COLOURS[0]}" in tensors]
        return Bases(*(_snapshot(part, tensors) for part in there))
    except (OSError, SafetensorError, KeyError, TypeError):
        return None


def _snapshot(part: str, tensors: Mapping[str, Tensor]) -> Snapshot:
    rewards = f"{part}/rewards/"
    return Snapshot(
        rewards={name.removeprefix(rewards): values for name, values in tensors.items() if name.startswith(rewards)},
        diversity=tensors.get(f"{part}/diversity"),
        **{name: tensors[f"{part}/{name}"] for name in COLOURS},
    )


def row_of(step: int, now: Snapshot, start: Snapshot, warnings: Sequence[Warned]) -> dict[str, Any]:
    """The line of one look.

    Returns:
        `step`; `rewards`: `{name: {"mean", "low", "high", "change", "deviations"}}`, the change from the start with its
        paired interval, and its mean in standard deviations over the prompts at the start; `diversity`, with its
        share of the start's, `saturation`, `contrast` and `clipped`: `{"mean", "low", "high"}`; `warnings`: names and
        texts.
    """
    rewards = {}
    for name, values in now.rewards.items():
        change = paired_interval(start.rewards[name], values)
        spread = float(start.rewards[name].std()) if len(values) > 1 else 0.0
        rewards[name] = {
            **mean_interval(values).as_dict(),
            "change": change.as_dict(),
            "deviations": change.mean / spread if spread > 0 else 0.0,
        }
    row: dict[str, Any] = {"step": step, "rewards": rewards}
    if now.diversity is not None and start.diversity is not None:
        whole = float(start.diversity.sum())
        share = float(now.diversity.sum()) / whole if whole > 0 else 1.0
        row["diversity"] = {**_interval(now.diversity), "share": share}
    row |= {name: _interval(getattr(now, name)) for name in COLOURS}
    return row | {"warnings": [warning.model_dump() for warning in warnings]}


def _interval(values: Float[Tensor, " prompts"]) -> dict[str, float]:
    return mean_interval(values).as_dict()
