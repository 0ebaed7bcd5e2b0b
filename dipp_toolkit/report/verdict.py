"""One honest sentence about a run, computed from its numbers.

What counts as a change: the 95 % intervals before and after do not overlap, or they do and the interval of the change
prompt by prompt (the sharper test) still leaves zero out. Anything less is called not measurable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..evaluation.intervals import Interval
from ..monitors.diversity_collapse import KEPT
from ..monitors.names import OVER_OPTIMISATION
from .numbers import Scores, change_text, decimals_for, finite, range_text, scores_of, short_name, text_of
from .run_files import RunFiles

Direction = Literal["rose", "fell", "same", "unknown"]
Tone = Literal["better", "mixed", "worse", "unclear"]


@dataclass(frozen=True)
class Verdict:
    """The sentence, and its tone for the page's colour."""

    text: str
    tone: Tone


@dataclass(frozen=True)
class Change:
    """How one score went from before to after.

    Attributes:
        direction: what can be said; `"unknown"` where there is nothing to compare or no interval.
        numbers: `"from -1.20 to 0.45"`, empty where there is nothing to compare.
        evidence: why that can be said.
    """

    direction: Direction
    numbers: str = ""
    evidence: str = ""


def change_of(scores: Scores, gain: Interval | None) -> Change:
    """Compare a score's columns `before` and `after`."""
    before, after = scores.get("before"), scores.get("after")
    if before is None or after is None:
        return Change("unknown")
    decimals = decimals_for([before, after])
    numbers = f"from {text_of(before.mean, decimals)} to {text_of(after.mean, decimals)}"
    if before.low == before.high and after.low == after.high:
        return Change("unknown", numbers, "there is no interval to say whether that is more than chance")
    moved: Direction = "rose" if after.mean > before.mean else "fell"
    if not before.overlaps(after):
        return Change(moved, numbers, "95 % intervals do not overlap")
    if gain is None:
        return Change("same", numbers, "95 % intervals overlap")
    change = f"the change prompt by prompt, {range_text(gain, decimals_for([gain]), True) or change_text(gain)},"
    if gain.low < gain.high and not gain.contains(0.0):
        return Change(
            "rose" if gain.mean > 0 else "fell", numbers, f"95 % intervals overlap, but {change} leaves zero out"
        )
    return Change("same", numbers, f"95 % intervals overlap, and {change} includes zero")


def _reward_clause(name: str, change: Change, weight: float) -> str:
    name = short_name(name)
    aim = "; its weight is negative, so falling is the aim" if weight < 0 else ""
    if not change.numbers:
        return f"{name} was not compared with the start"
    if change.direction == "unknown":
        return f"{name} went {change.numbers} ({change.evidence}{aim})"
    if change.direction == "same":
        return f"{name} did not change measurably, {change.numbers} ({change.evidence}{aim})"
    return f"{name} {change.direction} {change.numbers} ({change.evidence}{aim})"


def _judge_clause(name: str, change: Change, trained_on: bool, hacked: bool, reward_rose: bool) -> str:
    who = f"the judge {short_name(name)}, " + ("which was also trained on," if trained_on else "never trained on,")
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
    """The clause, and whether diversity was kept as far as anybody can tell."""
    start = _ratio(values, "before")
    if start is not None:
        kept = round(start, 2) >= KEPT
        return f"diversity {'is' if kept else 'fell to'} {start:.2f} of the start", kept
    reference = _ratio(values, "reference")
    return (f"diversity is {reference:.2f} of the reference's", True) if reference is not None else (None, True)


def _tone(aimed: list[bool | None], judge: Direction | None, kept: bool) -> Tone:
    """`aimed` says of each reward whether it moved as it should, the other way (False), or not measurably (None)."""
    if judge == "fell" or False in aimed:
        return "mixed" if True in aimed or judge == "rose" else "worse"
    if True not in aimed and judge != "rose":
        return "unclear" if kept else "worse"
    # One of several rewards may have been at its ceiling from the start; a judge that rose settles it.
    settled = None not in aimed or judge == "rose"
    return "better" if settled and kept else "mixed"


def _divergence_clause(values: Mapping[str, Any]) -> str | None:
    before, after = finite(values.get("before")), finite(values.get("after"))
    if before is None or after is None:
        return None
    decimals = decimals_for(Interval(one, one, one) for one in (before, after))
    verb = "fell" if after < before else "rose" if after > before else "stayed"
    if verb == "stayed":
        return f"the divergence estimate stayed at {text_of(after, decimals)}"
    return f"the divergence estimate {verb} from {text_of(before, decimals)} to {text_of(after, decimals)}"


def verdict(run: RunFiles) -> Verdict:
    """The sentence that opens a run's report."""
    summary, weights = run.summary, run.config.rewards
    gains = scores_of(summary.get("gain") or {})
    changes = {
        name: change_of(scores_of(scores), gains.get(name))
        for name, scores in (summary.get("rewards") or {}).items()
        if name in weights
    }
    aimed: list[bool | None] = [
        (one.direction == ("fell" if weights[name] < 0 else "rose")) if one.direction in ("rose", "fell") else None
        for name, one in changes.items()
    ]
    clauses: list[str | None] = [_reward_clause(name, one, weights[name]) for name, one in changes.items()]
    if not weights:
        clauses = [
            f"distilled without rewards in {run.config.steps:,} steps",
            _divergence_clause(summary.get("divergence") or {}),
        ]
    judge, judged = summary.get("judge"), None
    if judge:
        name = judge["name"]
        judged = change_of(scores_of(judge), gains.get(name))
        rose = any(one.direction == "rose" for one in changes.values())
        warned = summary.get("warned")  # by the monitors; runs of before they existed have no such list
        hacked = OVER_OPTIMISATION in warned if warned is not None else True in aimed and name not in weights
        clauses.append(_judge_clause(name, judged, name in weights, hacked, rose))
    diversity, kept = _diversity_clause(summary.get("diversity") or {})
    clauses.append(diversity)
    said = [clause for clause in clauses if clause]
    text = "; ".join(said) + "." if said else "This run measured nothing that could be compared."
    text = text[0].upper() + text[1:] if not changes else text
    return Verdict(text, _tone(aimed, judged.direction if judged else None, kept))
