"""The search for each sibling's own scale and guidance: one grid for all, so that each has the same budget.

A grid's scales are factors of the sibling's anchor, the `reward_scale` at which its rewards pull `PULL` times as hard
as its divergence at the start (`anchors.py`). First every factor is tried without guidance. Where any sibling's best is
at an edge, the grid grows by one factor there, for every sibling, until no best is at an edge or `MOST_GROWN` factors
were added at that end. Then each sibling's best `SCALES_GUIDED` scales are tried under `GUIDANCES`, which grow upwards
by the same rule. Nothing here runs anything: from what is known it says what is to be tried next, and what is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PULL = 0.7
FACTORS = (1.0, 2.0, 4.0, 8.0)
"""Of pulls from the 0.7 that is recommended to 5.6, twice the 2.6 of `reward_scale=80`, the best one of DI++ in
`benchmarks/family_study`."""
RATIO = 2.0
MOST_GROWN = 1
"""Factors added at either end."""
PLAIN = 1.0
"""No guidance."""
GUIDANCES = (1.5,)
GUIDANCE_STEP = 0.5
MOST_GUIDED = 1
"""Guidances added."""
SCALES_GUIDED = 1
LEAST_NAMING = 0.97
CRITERION = (
    f"the highest mean of the judge among the runs whose images the judge names rightly in at least {LEAST_NAMING:.0%} "
    "and whose Frechet distance is no larger than the start's; where no run is within both bounds, the highest mean of "
    "all, and the table says so"
)
"""How a sibling's setting is chosen, fixed before any run."""


@dataclass(frozen=True, order=True)
class Setting:
    """One point of a sibling's grid.

    Attributes:
        sibling: a name of `objectives.SIBLINGS`.
        factor: of its anchor.
        guidance: under which it is aligned.
    """

    sibling: str
    factor: float
    guidance: float


@dataclass(frozen=True)
class Outcome:
    """What a run of the search reached, on the prompts and noises of the search.

    Attributes:
        judge: mean over prompts and noises.
        naming: share that the judge names rightly, in [0, 1].
        frechet: distance to real compositions.
    """

    judge: float
    naming: float
    frechet: float

    def within(self, start_frechet: float) -> bool:
        """Whether it is within both bounds of `CRITERION`."""
        return self.naming >= LEAST_NAMING and self.frechet <= start_frechet


@dataclass(frozen=True)
class Search:
    """How far a search is.

    Attributes:
        stage: settings that are to be tried before anything else can be said, tried ones included; empty at the end.
        planned: all settings that are known to belong to the search, in order.
        factors: of the grid as it has grown.
        guidances: tried beside `PLAIN`, as they have grown.
        chosen: by sibling; empty until the search is over.
        at_edge: siblings whose best scale is still at the grid's edge when it may grow no more.
    """

    stage: tuple[Setting, ...]
    planned: tuple[Setting, ...]
    factors: tuple[float, ...]
    guidances: tuple[float, ...]
    chosen: Mapping[str, Setting]
    at_edge: tuple[str, ...] = ()


def ranked(settings: Sequence[Setting], outcomes: Mapping[Setting, Outcome], start_frechet: float) -> list[Setting]:
    """Settings from the best by `CRITERION`; equal ones in order."""
    return sorted(settings, key=lambda at: (not outcomes[at].within(start_frechet), -outcomes[at].judge, at))


def search(siblings: Sequence[str], outcomes: Mapping[Setting, Outcome], start_frechet: float) -> Search:
    """What the search tries next, from what it has seen.

    Args:
        siblings: whose settings are searched.
        outcomes: of the settings that were tried.
        start_frechet: Frechet distance of the generator that all start from, on the prompts of the search.
    """
    factors, plain, edges = _scales(siblings, outcomes, start_frechet)
    guidances = list(GUIDANCES)
    guided: list[Setting] = []
    if not _missing(plain, outcomes):
        best = {name: ranked(_of(plain, name), outcomes, start_frechet)[:SCALES_GUIDED] for name in siblings}
        while True:
            guided = [
                Setting(name, at.factor, guidance) for name in siblings for guidance in guidances for at in best[name]
            ]
            if _missing(guided, outcomes) or len(guidances) >= len(GUIDANCES) + MOST_GUIDED:
                break
            leaders = [ranked(_of([*plain, *guided], name), outcomes, start_frechet)[0] for name in siblings]
            if all(leader.guidance < guidances[-1] for leader in leaders):
                break
            guidances.append(guidances[-1] + GUIDANCE_STEP)
    planned = (*plain, *guided)
    stage = plain if _missing(plain, outcomes) else guided if _missing(guided, outcomes) else []
    chosen = {} if stage else {name: ranked(_of(planned, name), outcomes, start_frechet)[0] for name in siblings}
    return Search(tuple(stage), planned, tuple(factors), tuple(guidances), chosen, tuple(edges))


def _scales(
    siblings: Sequence[str], outcomes: Mapping[Setting, Outcome], start_frechet: float
) -> tuple[list[float], list[Setting], list[str]]:
    """The grid as far as it has grown, its settings without guidance, and whose best is at an edge for good."""
    factors, low, high = list(FACTORS), 0, 0
    while True:
        plain = [Setting(name, factor, PLAIN) for name in siblings for factor in factors]
        if _missing(plain, outcomes):
            return factors, plain, []
        best = {name: ranked(_of(plain, name), outcomes, start_frechet)[0].factor for name in siblings}
        below = low < MOST_GROWN and factors[0] in best.values()
        above = high < MOST_GROWN and factors[-1] in best.values()
        if not (below or above):
            return factors, plain, [name for name, factor in best.items() if factor in (factors[0], factors[-1])]
        factors = [*[factors[0] / RATIO] * below, *factors, *[factors[-1] * RATIO] * above]
        low, high = low + below, high + above


def _of(settings: Sequence[Setting], sibling: str) -> list[Setting]:
    return [at for at in settings if at.sibling == sibling]


def _missing(settings: Sequence[Setting], outcomes: Mapping[Setting, Outcome]) -> bool:
    return any(at not in outcomes for at in settings)
