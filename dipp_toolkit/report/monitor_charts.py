"""The monitors' looks while the run went on: curves over steps, and their warnings in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..monitoring.diversity_collapse import KEPT
from ..monitoring.history import COLOURS
from .charts.lines import Series
from .curves import Curve, curve
from .run_files import RunFiles
from .table import finite

Look = Mapping[str, Any]


def _series(looks: Sequence[Look], name: str, value_of: Callable[[Look], Any]) -> Series | None:
    """A line over the looks that have a number there."""
    found = []
    for look in looks:
        try:
            value = finite(value_of(look))
        except (KeyError, TypeError):
            continue
        if value is not None:
            found.append((look["step"], value))
    return Series(name, [step for step, _ in found], [value for _, value in found]) if found else None


def _names(looks: Sequence[Look]) -> list[str]:
    return list(dict.fromkeys(name for look in looks for name in look.get("rewards") or {}))


def monitor_curves(run: RunFiles) -> list[Curve]:
    """Trained rewards beside judges, diversity and colours, on held-out prompts."""
    looks, trained = run.monitors, {*run.config.rewards, *run.config.floors}
    names = sorted(_names(looks), key=lambda one: one not in trained)
    rewards = [
        _series(
            looks,
            f"{run.spelling.name(name)}{'' if name in trained else ' (judge)'}",
            lambda look, name=name: look["rewards"][name]["deviations"],  # type: ignore[misc]
        )
        for name in names
    ]
    found = [
        curve(
            "Rewards and judges",
            rewards,
            "Change of each score's mean from the start, in standard deviations of that score over the prompts at the "
            "start, so that scores of different scales share an axis.",
            "Judges rise with the trained rewards, or stay. A judge that falls while a trained reward rises is "
            "over-optimisation.",
            include=(0.0,),
        ),
        curve(
            "Diversity",
            [_series(looks, "share of the start", lambda look: look["diversity"]["share"])],
            "Difference between two noises' images of one prompt, as a share of the start's.",
            f"Stays near 1. Below {KEPT:g}, its whole interval, it is a collapse.",
            include=(KEPT, 1.0),
        ),
        curve(
            "Colour",
            [_series(looks, name, lambda look, name=name: look[name]["mean"]) for name in COLOURS],  # type: ignore[misc]
            "Mean saturation, contrast (standard deviation of luma) and share of pixels at an end of the range.",
            "Flat. A rise above both the start and the reference is over-saturation.",
        ),
    ]
    return [one for one in found if one is not None]


def monitor_warnings(run: RunFiles) -> list[tuple[int, str]]:
    """Step and sentence of every warning, in order."""
    return [
        (int(look["step"]), run.spelling.text(str(one.get("text", ""))))
        for look in run.monitors
        for one in look.get("warnings") or []
    ]
