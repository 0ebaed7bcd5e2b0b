r"""Over-optimisation, also called reward hacking: what is trained on rises while what is not falls.

With $r$ a trained reward, $j$ a reward that nothing was trained on, and $\Delta$ the change from the start prompt by
prompt (of a reward with a negative weight, its negative), the warning is raised where, for some $r$ and $j$,

$$\underline{\Delta r} > 0 \quad\text{and}\quad \overline{\Delta j} < 0 \quad\text{and}\quad
  \bar{\Delta j} < -0.1\,\mathrm{sd}_p(j_{start}),$$

the bars above and below being the ends of 95 % paired intervals over prompts, and $\mathrm{sd}_p$ the
standard deviation over prompts. The effect is that of Gao, Schulman and Hilton (2023, arXiv 2210.10760): the proxy goes
on rising after the true reward has turned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..config import OVER_OPTIMISATION as NAME
from ..evaluation.intervals import Interval, paired_interval
from ..events import Warned
from .snapshot import Snapshot

FALL = 0.1
"""Least fall of a judge that counts, in standard deviations of its scores over prompts at the start.

Many prompts make the interval of a fall too small to see narrow enough to leave zero out; a tenth of what tells one
prompt from another is about what a person can see (Cohen calls 0.2 small)."""


def over_optimisation(now: Snapshot, start: Snapshot, trained_on: Sequence[str] | Mapping[str, float]) -> Warned | None:
    """The warning, or None.

    Args:
        now: the generator in question.
        start: what its training started from.
        trained_on: rewards it was trained on, by name or by name with the weights, of which the signs count and a 0 is
            not trained on; every other reward in both snapshots judges.
    """
    weights = trained_on if isinstance(trained_on, Mapping) else dict.fromkeys(trained_on, 1.0)
    rose: dict[str, Interval] = {}
    fell: dict[str, Interval] = {}
    for name, values in now.rewards.items():
        if name not in start.rewards:
            continue
        before, weight = start.rewards[name], weights.get(name, 0.0)
        change = paired_interval(before, values)
        if (weight > 0 and change.low > 0) or (weight < 0 and change.high < 0):
            rose[name] = change
        if weight == 0 and change.high < 0 and -change.mean > FALL * float(before.std()):
            fell[name] = change
    if not rose or not fell:
        return None
    return Warned(
        name=NAME,
        text=f"{_say(rose)}, as it was trained to, while {_say(fell)}, which nothing was trained on: the reward is "
        "being exploited. Lower reward_scale, train fewer steps, or train on what fell as well and judge by another.",
    )


def _say(changes: Mapping[str, Interval]) -> str:
    parts = []
    for name, change in changes.items():
        low, high = sorted((abs(change.low), abs(change.high)))
        parts.append(
            f"{name} {'rose' if change.mean > 0 else 'fell'} by {abs(change.mean):.3g} ({low:.3g} to {high:.3g})"
        )
    return " and ".join(parts)
