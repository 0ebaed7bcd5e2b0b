"""One honest sentence about a run, computed from its numbers.

What counts as a change is certain, large enough to matter, and visible in the numbers as they are printed. Certain: the
95 % interval of the change prompt by prompt leaves zero out, or where that is not known the intervals before and after
do not overlap. Large: at least `LEAST_EFFECT` standard deviations of the score over prompts. Anything less is called
not measurable. A run is never called better while a monitor, or the distance to the reference, says the opposite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from ..config import OVER_OPTIMISATION
from ..config import WARNINGS as MONITORS
from ..evaluation.intervals import LEAST_EFFECT, Interval, matters
from ..monitoring.diagnostic import all_diagnostics
from ..monitoring.diversity_collapse import KEPT
from .charts.formatting import change_text, decimals_for, range_text, text_of
from .contents import prompts_of
from .run_files import RunFiles
from .table import Scores, effect_of, finite, scores_of

Direction = Literal["rose", "fell", "same", "unknown"]
Tone = Literal["better", "mixed", "worse", "unclear"]


@dataclass(frozen=True)
class Verdict:
    """The sentence, what it covers and what its words ask for, and its tone for the page's colour."""

    text: str
    tone: Tone
    scope: str = ""


@dataclass(frozen=True)
class Change:
    """How one score went from before to after.

    Attributes:
        direction: what the numbers show; `"unknown"` where there is nothing to compare or no interval.
        numbers: `"from -1.20 to 0.45"`, empty where there is nothing to compare.
        evidence: why.
    """

    direction: Direction
    numbers: str = ""
    evidence: str = ""


def change_of(scores: Scores, gain: Interval | None, effect: float | None = None) -> Change:
    """Compare a score's columns `before` and `after`.

    Args:
        scores: intervals by column.
        gain: of the change prompt by prompt; None where it was not measured.
        effect: the change in standard deviations over prompts; None where that is not known, which asks nothing of it.
    """
    before, after = scores.get("before"), scores.get("after")
    if before is None or after is None:
        return Change("unknown")
    decimals = decimals_for([before, after])
    texts = text_of(before.mean, decimals), text_of(after.mean, decimals)
    numbers = f"from {texts[0]} to {texts[1]}"
    if before.low == before.high and after.low == after.high and (gain is None or gain.low == gain.high):
        return Change("unknown", numbers, "there is no interval, so it may be chance")
    direction, evidence = _certain(before, after, gain)
    if direction == "same":
        return Change(direction, numbers, evidence)
    if effect is not None and not matters(effect):
        size = f"{math.floor(100 * abs(effect)) / 100:.2f}"  # never rounded up to what would matter
        short = f"{size} standard deviations over prompts, where {LEAST_EFFECT:g} would matter"
        return Change("same", numbers, f"certain, but {short}")
    if texts[0] == texts[1]:
        return Change("same", numbers, "the numbers print alike")
    return Change(direction, numbers, evidence)


def _certain(before: Interval, after: Interval, gain: Interval | None) -> tuple[Direction, str]:
    moved: Direction = "rose" if after.mean > before.mean else "fell"
    if not before.overlaps(after):
        return moved, "95 % intervals do not overlap"
    if gain is None:
        return "same", "95 % intervals overlap"
    change = f"the change prompt by prompt, {range_text(gain, decimals_for([gain]), True) or change_text(gain)},"
    if gain.low < gain.high and not gain.contains(0.0):
        return "rose" if gain.mean > 0 else "fell", f"95 % intervals overlap, but {change} leaves zero out"
    return "same", f"95 % intervals overlap, and {change} includes zero"


def _reward_clause(name: str, change: Change, weight: float) -> str:
    aim = "; its weight is negative, so falling is the aim" if weight < 0 else ""
    if not change.numbers:
        return f"{name} was not compared with the start"
    if change.direction == "unknown":
        return f"{name} went {change.numbers} ({change.evidence}{aim})"
    if change.direction == "same":
        return f"{name} did not change measurably, {change.numbers} ({change.evidence}{aim})"
    return f"{name} {change.direction} {change.numbers} ({change.evidence}{aim})"


def _judge_clause(name: str, change: Change, trained_on: bool, hacked: bool, reward_rose: bool) -> str:
    who = f"the judge {name}, " + ("which was also trained on," if trained_on else "never trained on,")
    if not change.numbers:
        return f"{who} was not compared with the start"
    if change.direction == "unknown":
        return f"{who} went {change.numbers}"
    if change.direction == "same":
        return f"{who} did not change measurably ({change.numbers.removeprefix('from ')})"
    if change.direction == "rose":
        return f"{who} rose {'too ' if reward_rose else ''}({change.numbers.removeprefix('from ')})"
    warning = ", which is what reward hacking looks like" if hacked else ""
    return f"{who} fell ({change.numbers.removeprefix('from ')}){warning}"


def _ratio(values: Mapping[str, Any], of: str) -> float | None:
    after, base = finite(values.get("after")), finite(values.get(of))
    return after / base if after is not None and base else None


def _diversity_clause(values: Mapping[str, Any]) -> tuple[str | None, bool]:
    """The clause, and whether diversity was kept as far as is known."""
    start = _ratio(values, "before")
    if start is not None:
        kept = round(start, 2) >= KEPT
        return f"diversity {'is' if kept else 'fell to'} {start:.2f} of the start", kept
    reference = _ratio(values, "reference")
    return (f"diversity is {reference:.2f} of the reference's", True) if reference is not None else (None, True)


def _tone(aimed: list[bool | None], judge: Direction | None, kept: bool, opposed: bool) -> Tone:
    """`aimed` says of each reward whether it moved as it should, the other way (False), or not measurably (None)."""
    kept = kept and not opposed
    if judge == "fell" or False in aimed:
        return "mixed" if True in aimed or judge == "rose" else "worse"
    if True not in aimed and judge != "rose":
        return "unclear" if kept else "worse"
    # One of several rewards may have been at its ceiling from the start; a judge that rose settles it.
    settled = None not in aimed or judge == "rose"
    return "better" if settled and kept else "mixed"


def _divergence_of(run: RunFiles) -> tuple[Direction, str | None]:
    """Which way the divergence estimate went over the run, and the clause; nothing where it was not logged.

    Its noise is that of single batches, taken from the differences of successive steps (von Neumann 1941), so that a
    slow change does not count as noise. A rise or a fall is at least two standard errors of the means of the run's
    first and last steps.
    """
    values = run.summary.get("divergence") or {}
    before, after = finite(values.get("before")), finite(values.get("after"))
    if before is None or after is None:
        return "unknown", None
    decimals = decimals_for(Interval(value, value, value) for value in (before, after))
    start, end = text_of(before, decimals), text_of(after, decimals)
    logged = [row["divergence"] for row in run.metrics if "divergence" in row]
    if len(logged) < 3:
        return "unknown", f"the divergence estimate went from {start} to {end} (too few steps to say more)"
    squares = [(b - a) ** 2 for a, b in pairwise(logged)]
    noise = math.sqrt(sum(squares) / len(squares) / 2)
    least = max(2 * noise * math.sqrt(2 / max(1, len(logged) // 20)), LEAST_EFFECT * noise)
    if start == end or abs(after - before) <= least:
        return "same", f"the divergence estimate did not change measurably ({start} to {end})"
    direction: Direction = "rose" if after > before else "fell"
    return direction, f"the divergence estimate {direction} from {start} to {end}"


def _scope(run: RunFiles) -> str:
    """What the verdict covers, and what its words ask for."""
    seed = run.summary.get("seed", run.config.seed)
    where = f"Said of this training alone (seed {seed})"
    if run.comparison is not None:
        noises = len(run.comparison.seeds)
        where += f", on {prompts_of(run)}, {noises} noise{'s' * (noises != 1)} each"
    return (
        f"{where}. A change is named where its 95 % interval leaves zero out and it is at least {LEAST_EFFECT:g} "
        "standard deviations over prompts."
    )


def warnings_about_images() -> list[str]:
    """Names of the warnings with which no run is called better: the others are about how the training goes."""
    return [*MONITORS, *(diagnostic.name for diagnostic in all_diagnostics() if diagnostic.about_images)]


def verdict(run: RunFiles) -> Verdict:
    """The sentence that opens a run's report."""
    summary, weights = run.summary, run.config.rewards
    gains = scores_of(summary.get("gain") or {})
    changes = {
        name: change_of(scores_of(scores), gains.get(name), effect_of(run, name))
        for name, scores in (summary.get("rewards") or {}).items()
        if name in weights
    }
    aimed: list[bool | None] = [
        (change.direction == ("fell" if weights[name] < 0 else "rose"))
        if change.direction in ("rose", "fell")
        else None
        for name, change in changes.items()
    ]
    clauses: list[str | None] = [
        _reward_clause(run.spelling.name(name), change, weights[name]) for name, change in changes.items()
    ]
    divergence, divergence_clause = _divergence_of(run)
    if not weights:
        clauses = [f"distilled without rewards in {run.config.steps:,} steps", divergence_clause]
        # The divergence is what a distillation is to bring down; with rewards it rises as they pull.
        aimed += [False] if divergence == "rose" else []
    judge, judged = summary.get("judge"), None
    warned = summary.get("warned")  # by the monitors; runs of before they existed have no such list
    if judge:
        name = judge["name"]
        judged = change_of(scores_of(judge), gains.get(name), effect_of(run, name))
        rose = any(change.direction == "rose" for change in changes.values())
        hacked = OVER_OPTIMISATION in warned if warned is not None else True in aimed and name not in weights
        clauses.append(_judge_clause(run.spelling.name(name), judged, name in weights, hacked, rose))
    diversity, kept = _diversity_clause(summary.get("diversity") or {})
    clauses.append(diversity)
    opposed = [name for name in warnings_about_images() if name in (warned or ())]
    clauses.append(f"warned of: {', '.join(opposed)}" if opposed else None)
    parts = [clause for clause in clauses if clause]
    text = "; ".join(parts) + "." if parts else "This run measured nothing that could be compared."
    text = text[0].upper() + text[1:] if not changes else text
    return Verdict(text, _tone(aimed, judged.direction if judged else None, kept, bool(opposed)), _scope(run))
