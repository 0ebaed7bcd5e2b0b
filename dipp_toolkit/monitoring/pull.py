r"""How hard rewards and divergence pull at the samples, and whether in the same direction.

A step's metrics hold the root-mean-square norm $n_i$ of each term's weighted gradient and the mean cosine $c_{ij}$ of
each two. Of the rewards' sum $R$ and the divergences' sum $D$ follow

$$|R|^2 \approx \sum_{i,j \in R} n_i n_j c_{ij}, \qquad
  \cos(R, D) \approx \frac{\sum_{i \in R, j \in D} n_i n_j c_{ij}}{|R|\, |D|},$$

exact for one reward and one divergence, and where all samples' gradients are of one size. The diagnosis holds their
means over the steps since the one before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..events import MOST, Warned, healthy
from ..objective.base import side_of
from ..objective.evaluate import WeightedTerm
from .diagnostic_names import PULL
from .ranges import Row, how_often, left, numbers

READING = (
    "Size of the rewards' joint gradient on the samples over the divergence's: above 1 the rewards pull harder, below "
    "1 the divergence does. Geometric mean over the steps since the diagnosis before."
)
HEALTHY = f"Between 0.1 and 10, and never beyond 1/{MOST:g} or {MOST:g}, where one of the two decides alone."

NORM, COSINE = "grad_norm/", "cosine/"


def _product(row: Mapping[str, float], one: str, other: str) -> float:
    norms = row[f"{NORM}{one}"] * row[f"{NORM}{other}"]
    if one == other:
        return norms
    return norms * row.get(f"{COSINE}{one}/{other}", row.get(f"{COSINE}{other}/{one}", 0.0))


@dataclass(frozen=True)
class Sides:
    """Names of an objective's terms that pull towards rewards, and of those that pull back to the reference."""

    rewards: Sequence[str]
    divergences: Sequence[str]


def sides_of(terms: Sequence[WeightedTerm]) -> Sides:
    """Terms that do not look at the assistant are rewards; a term that is both, a diffused reward say, is neither."""
    return Sides(
        [one.name for one in terms if side_of(one.term) == "rewards"],
        [one.name for one in terms if side_of(one.term) == "divergences"],
    )


def pull_of(row: Mapping[str, float], sides: Sides) -> dict[str, float] | None:
    """The pull at one step.

    Args:
        row: of `metrics.jsonl`.
        sides: the terms that are compared.

    Returns:
        `rewards`, `divergence`: both norms; `ratio`: the first over the second; `cosine` between them. None where one
        side has no term, or does not pull.
    """
    rewards = [name for name in sides.rewards if f"{NORM}{name}" in row]
    others = [name for name in sides.divergences if f"{NORM}{name}" in row]

    def inner(some: Sequence[str], more: Sequence[str]) -> float:
        return sum(_product(row, one, other) for one in some for other in more)

    reward, divergence = (math.sqrt(max(inner(group, group), 0.0)) for group in (rewards, others))
    if not reward or not divergence:
        return None
    cosine = inner(rewards, others) / (reward * divergence)
    return {
        "rewards": reward,
        "divergence": divergence,
        "ratio": reward / divergence,
        "cosine": min(1.0, max(-1.0, cosine)),
    }


def mean_pull(rows: Sequence[Mapping[str, float]], sides: Sides) -> dict[str, float] | None:
    """The pull over several steps: geometric means of norms and ratio, the mean cosine; None where no step has any."""
    found = [one for row in rows if (one := pull_of(row, sides)) is not None]
    if not found:
        return None
    means = {
        name: math.exp(sum(math.log(one[name]) for one in found) / len(found))
        for name in ("rewards", "divergence", "ratio")
    }
    return means | {"cosine": sum(one["cosine"] for one in found) / len(found)}


def warning(rows: Sequence[Row]) -> Warned | None:
    """The warning, or None."""
    values = [value for _, value in numbers(rows, "pull", "ratio")]
    if not left(values, healthy):
        return None
    now = values[-1] if not healthy(values[-1]) else max(values, key=lambda value: abs(math.log(value)))
    said = (
        f"the rewards pulled {now:,.0f} times as hard as the divergence, which then holds nothing. Lower "
        "reward_scale, or the pull that was asked for."
        if now > 1
        else f"the divergence pulled {1 / now:,.0f} times as hard as the rewards, which then change next to nothing. "
        "Raise reward_scale, or ask for a pull: --pull 0.7."
    )
    return Warned(name=PULL, text=f"{how_often(values, healthy).capitalize()} one side decided alone: {said}")
