r"""Over-optimisation, also called reward hacking: what is trained on rises while what is not falls.

With $r$ a trained reward, $j$ a reward that nothing was trained on, and $\Delta$ the change from the start prompt by
prompt, the warning is raised where, for some $r$ and $j$,

$$\underline{\Delta r} > 0 \quad\text{and}\quad \overline{\Delta j} < 0 \quad\text{and}\quad
  \bar{\Delta j} < -0.1\,\mathrm{sd}_p(j_{start}),$$

the bars above and below being the ends of 95 % paired bootstrap intervals over prompts (Gao, Schulman and Hilton 2023,
arXiv 2210.10760, for the effect).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..bench.rows import Warned
from ..evaluation.intervals import Interval, paired_interval
from .snapshot import Snapshot

NAME = "over-optimisation"
FALL = 0.1
"""Least fall of a judge, in standard deviations of its scores over prompts at the start."""


def over_optimisation(now: Snapshot, start: Snapshot, trained_on: Sequence[str]) -> Warned | None:
    """The warning, or None.

    Args:
        now: the generator in question.
        start: what its training started from.
        trained_on: rewards it was trained on; every other one in both snapshots judges.
    """
    changes = {
        name: paired_interval(start.rewards[name], values)
        for name, values in now.rewards.items()
        if name in start.rewards
    }
    rose = {name: one for name, one in changes.items() if name in trained_on and one.low > 0}
    fell = {
        name: one
        for name, one in changes.items()
        if name not in trained_on and one.high < 0 and -one.mean > FALL * float(start.rewards[name].std())
    }
    if not rose or not fell:
        return None
    return Warned(
        name=NAME,
        text=f"{_say(rose, 'rose')}, and it was trained on, while {_say(fell, 'fell')}, which nothing was trained on: "
        "the reward is being exploited. Lower reward_scale, or train fewer steps.",
    )


def _say(changes: dict[str, Interval], verb: str) -> str:
    parts = [f"{name} {verb} by {abs(one.mean):.3g}" for name, one in changes.items()]
    return " and ".join(parts)
