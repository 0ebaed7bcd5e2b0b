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
from typing import Any

from ...config import TrainConfig
from ...events import MOST, Warned, healthy
from ...objective.result import metric_name
from ...utils.messages import number_text
from ..diagnostic import Diagnostic, Observation, Row, Sides, how_often, left, numbers

UNEVEN, OPPOSED = "uneven-pull", "opposed-pull"

LEAST_COSINE = -0.5
"""Below, the weaker side loses more than half of its pull to the other.

The emoji world's recommended run has -0.02: on single samples the divergence's gradient is mostly noise of its time."""


def _product(row: Mapping[str, float], first: str, second: str) -> float:
    """The inner product of two terms' gradients; cosines are logged once for each two."""
    norms = row[_norm(first)] * row[_norm(second)]
    if first == second:
        return norms
    names = metric_name("cosine", first, second), metric_name("cosine", second, first)
    return norms * next((row[name] for name in names if name in row), 0.0)


def _norm(term: str) -> str:
    return metric_name("grad_norm", term)


def pull_of(row: Mapping[str, float], sides: Sides) -> dict[str, float] | None:
    """The pull at one step.

    Args:
        row: of `metrics.jsonl`.
        sides: the terms that are compared.

    Returns:
        `rewards`, `divergence`: both norms; `ratio`: the first over the second; `cosine` between them. None where one
        side has no term, or does not pull.
    """
    rewards = [name for name in sides.rewards if _norm(name) in row]
    others = [name for name in sides.divergences if _norm(name) in row]

    def inner(left_terms: Sequence[str], right_terms: Sequence[str]) -> float:
        return sum(_product(row, first, second) for first in left_terms for second in right_terms)

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
    pulls = [pull for row in rows if (pull := pull_of(row, sides)) is not None]
    if not pulls:
        return None
    means = {
        name: math.exp(sum(math.log(pull[name]) for pull in pulls) / len(pulls))
        for name in ("rewards", "divergence", "ratio")
    }
    return means | {"cosine": sum(pull["cosine"] for pull in pulls) / len(pulls)}


def measure(observation: Observation) -> Mapping[str, Any]:
    """`pull`: both sides' mean norms, their ratio and cosine; nothing where one side did not pull."""
    pull = mean_pull(observation.metrics, observation.sides)
    return {} if pull is None else {"pull": pull}


def has_rewards(config: TrainConfig) -> bool:
    """Whether rewards pull all the time: floors alone are meant to rest."""
    return bool(config.rewards)


def warn_of_ratio(rows: Sequence[Row]) -> Warned | None:
    """The warning that one side decides alone, or None."""
    values = [value for _, value in numbers(rows, "pull", "ratio")]
    if not left(values, healthy):
        return None
    now = values[-1] if not healthy(values[-1]) else max(values, key=lambda value: abs(math.log(value)))
    outcome = (
        f"the rewards pulled {now:,.0f} times as hard as the divergence, which then holds nothing. Lower "
        "reward_scale, or the requested pull."
        if now > 1
        else f"the divergence pulled {1 / now:,.0f} times as hard as the rewards, which then change next to nothing. "
        "Raise reward_scale, or request a pull: --pull 0.7."
    )
    return Warned(name=UNEVEN, text=f"{how_often(values, healthy).capitalize()} one side decided alone: {outcome}")


def is_agreement(cosine: float) -> bool:
    """Whether a cosine is in its range."""
    return cosine >= LEAST_COSINE


def warn_of_cosine(rows: Sequence[Row]) -> Warned | None:
    """The warning that one side undoes the other's work, or None."""
    values = [value for _, value in numbers(rows, "pull", "cosine")]
    if not left(values, is_agreement):
        return None
    return Warned(
        name=OPPOSED,
        text=f"The rewards' gradient pointed against the divergence's {how_often(values, is_agreement)} (cosine "
        f"{number_text(min(values), '.2f')} at least, where {number_text(LEAST_COSINE, 'g')} is the limit): each "
        "undoes the other's work. Lower reward_scale, or check that the reward's sign is the one you mean.",
    )


DIAGNOSTICS = (
    Diagnostic(
        name=UNEVEN,
        title="Rewards over divergence",
        reading=(
            "Size of the rewards' joint gradient on the samples over the divergence's: above 1 the rewards pull "
            "harder, below 1 the divergence does. Geometric mean over the steps since the diagnosis before."
        ),
        healthy=f"Between 0.1 and 10, and never beyond 1/{MOST:g} or {MOST:g}, where one of the two decides alone.",
        paths={"ratio": ("pull", "ratio")},
        measure=measure,
        warn=warn_of_ratio,
        applies=has_rewards,
        absence=(
            "Rewards and a divergence did not both pull as terms of their own, so there is nothing to compare between "
            "them."
        ),
        needs=2,
        log=True,
    ),
    Diagnostic(
        name=OPPOSED,
        title="Rewards with divergence",
        reading=(
            "Cosine between the rewards' joint gradient and the divergence's, mean over samples and over the steps "
            "since the diagnosis before: 1 is the same direction, 0 neither, \N{MINUS SIGN}1 one against the other."
        ),
        healthy=(
            "A little below 0 once both have come to a balance. Below \N{MINUS SIGN}0.5 they undo each other's work "
            "step by step, and the generator swings more than it learns."
        ),
        paths={"cosine": ("pull", "cosine")},
        warn=warn_of_cosine,
        applies=has_rewards,
        include=(0.0,),
    ),
)
