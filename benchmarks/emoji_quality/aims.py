"""Which aims a world's numbers meet, computed from the recorded numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dipp_toolkit.evaluation.intervals import Interval

LEAST_START_DIVERSITY = 0.9
LARGEST_START_FRECHET = 1.3
LEAST_ALIGNED_DIVERSITY = 0.85
LARGEST_ALIGNED_FRECHET = 1.0

Kind = Literal["real", "reference", "distilled", "aligned"]
Verdict = Literal["met", "met, within the interval", "not met"]
"""An aim on a ratio is met *within the interval* where the number meets it and its interval reaches beyond."""

NOTHING = "nothing was aligned"


@dataclass(frozen=True)
class Aim:
    """One aim and what became of it.

    Attributes:
        text: what was to be reached.
        verdict: whether it was, in every column it is about.
        found: the numbers.
    """

    text: str
    verdict: Verdict
    found: str


def columns_of(section: Mapping[str, Any], kind: Kind) -> list[Mapping[str, Any]]:
    """The columns of a kind, which is the first word of their names."""
    return [row for name, row in section["columns"].items() if name.replace(",", " ").split()[0] == kind]


def interval_text(interval: Interval, digits: str = ".2f") -> str:
    """`"1.38 (1.20 to 1.55)"`, without the interval where there is none."""
    if interval.low == interval.high:
        return f"{interval.mean:{digits}}"
    return f"{interval.mean:{digits}} ({interval.low:{digits}} to {interval.high:{digits}})"


def ratio_of(column: Mapping[str, Any], reference: Mapping[str, Any], figure: str) -> Interval:
    """A column's figure over the reference's; a point in results of before its interval was measured."""
    measured = column.get("against_reference", {}).get(f"{figure}_ratio")
    if measured is not None:
        return Interval(**measured)
    ratio = column[figure] / reference[figure]
    return Interval(ratio, ratio, ratio)


def ratio_aim(text: str, ratios: Sequence[Interval], least: float | None = None, most: float | None = None) -> Aim:
    """An aim on ratios: each is at least, or at most, a bound."""

    def inside(low: float, high: float) -> bool:
        return (least is None or low >= least) and (most is None or high <= most)

    verdict: Verdict = "not met"
    if ratios and all(inside(ratio.mean, ratio.mean) for ratio in ratios):
        certain = all(inside(ratio.low, ratio.high) for ratio in ratios)
        verdict = "met" if certain else "met, within the interval"
    return Aim(text, verdict, ", ".join(map(interval_text, ratios)) or NOTHING)


def judge_aim(aligned: Sequence[Mapping[str, Any]], reference: Mapping[str, Any]) -> Aim:
    """The judge prefers every aligned generator to the reference, intervals apart."""
    bound = Interval(**reference["preference"])
    found = [Interval(**column["preference"]) for column in aligned]
    above = sum(interval.low > bound.high for interval in found)
    means = ", ".join(map(interval_text, found)) or NOTHING
    text = f"{means} beside {interval_text(bound)}; apart in {above} of {len(found)}"
    pairs = [column["against_reference"]["preference"] for column in aligned if "against_reference" in column]
    if pairs:
        differences = (interval_text(Interval(pair["mean"], pair["low"], pair["high"]), "+.2f") for pair in pairs)
        text += f"; prompt by prompt {', '.join(differences)}"
    verdict: Verdict = "met" if found and above == len(found) else "not met"
    return Aim("in each seed the judge prefers the aligned generator to the reference, intervals apart", verdict, text)


def aims_of(section: Mapping[str, Any]) -> list[Aim]:
    """All aims of a world.

    Args:
        section: what its file of results holds.
    """
    (reference,), (start,) = columns_of(section, "reference"), columns_of(section, "distilled")
    aligned = columns_of(section, "aligned")
    return [
        judge_aim(aligned, reference),
        ratio_aim(
            "in each seed the aligned generator's Frechet distance is no larger than the reference's",
            [ratio_of(column, reference, "frechet") for column in aligned],
            most=LARGEST_ALIGNED_FRECHET,
        ),
        ratio_aim(
            f"in each seed the aligned generator has {LEAST_ALIGNED_DIVERSITY:g} of the reference's diversity or more",
            [ratio_of(column, reference, "diversity") for column in aligned],
            least=LEAST_ALIGNED_DIVERSITY,
        ),
        ratio_aim(
            f"the distilled start has {LEAST_START_DIVERSITY:g} of the reference's diversity or more",
            [ratio_of(start, reference, "diversity")],
            least=LEAST_START_DIVERSITY,
        ),
        ratio_aim(
            f"the distilled start's Frechet distance is at most {LARGEST_START_FRECHET:g} times the reference's",
            [ratio_of(start, reference, "frechet")],
            most=LARGEST_START_FRECHET,
        ),
    ]
