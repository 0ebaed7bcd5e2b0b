"""The ways that are compared: what differs between them, and nothing else does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PULL = 2.8
"""Of the rewards over the divergence, where a way has one: four times the 0.7 that is usual, which the judge liked best
in `benchmarks/family_study` (DI++ at 80)."""

UPDATES = {"aligned": 40, "distilled": 120}
"""Generator updates of the way that sets the pace in each part; the others take as many as its time allows."""

MEASURED: dict[str, Any] = {
    "monitor_every": 0,
    "diagnose_every": 0,
    "sample_every": 10**6,
    "reference_steps": 1,
    "eval_count": 352,
    "cooldown": 10,
    "device": "cpu",
}
"""Of every run: no looks at held-out prompts in between, and all of them before and after."""

ALIGNED: dict[str, Any] = {"generator": "emoji-onestep", "guidance": 1.0, **MEASURED}
DISTILLED: dict[str, Any] = {"reference": "emoji-reference", "guidance": 1.5, "batch_size": 16, "ema": 0.9, **MEASURED}
REWARDS: dict[str, Any] = {"rewards": {"emoji-preference": 1.0, "emoji-clip": 0.02}, "reward_scale": 80.0}
"""As recommended for the alignment of this world."""
HALF = "half"
"""In a setting: half of the way's own updates."""
DYNAMIC: dict[str, Any] = {"term": "dynamic_kl", "term_options": {"dynamic_kl": {"updates": HALF}}}


@dataclass(frozen=True)
class Way:
    """One row.

    Attributes:
        name: in the table.
        phases: settings of its trainings; each goes on with what the one before has made, and all have the same time.
    """

    name: str
    phases: tuple[dict[str, Any], ...] = field(default_factory=tuple)


WAYS: dict[str, tuple[Way, ...]] = {
    "aligned": (
        Way("DI++ (`integral_kl`)", ({"pull": PULL},)),
        Way("DMDR (`dynamic_kl`)", ({"pull": PULL, **DYNAMIC},)),
        Way("`advantage_weighted_kl`", ({"term": "advantage_weighted_kl"},)),
        Way("`integral_kl,last_step_reward`", ({"term": "integral_kl,last_step_reward", "pull": PULL},)),
        Way("`integral_kl,group_preference`", ({"term": "integral_kl,group_preference", "pull": PULL},)),
    ),
    "distilled": (
        Way("distillation alone", ({"rewards": {}},)),
        Way("after: half distilled, half aligned", ({"rewards": {}}, REWARDS)),
        Way("during: rewards from the start", (REWARDS,)),
        Way("during, DMDR: `dynamic_kl`", ({**REWARDS, **DYNAMIC},)),
    ),
}
"""By part: from the shipped one-step generator, and from the reference's own network. The first of the first part and
the third of the second set the pace."""

PACE = {"aligned": "DI++ (`integral_kl`)", "distilled": "during: rewards from the start"}
