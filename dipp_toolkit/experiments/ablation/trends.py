r"""How figures go with a setting, and whether they go as the papers say.

Cells that differ in one setting alone, every other value and the seed being equal, are matched. The change between two
values is the mean of the matched differences $d_1, \dots, d_n$ with the interval
$\bar d \pm t_{n-1} s / \sqrt n$ (Student 1908), so it holds what differs from training to training and not only from
prompt to prompt. A change is named where the interval leaves zero out and the change is large enough to matter
beside the spread over prompts; in the list of all changes with a setting, where it is certain after Holm's correction
for their number as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from ...evaluation.intervals import LEAST_EFFECT, matters
from ...utils.messages import number_text
from ...utils.setting_layers import AUTO_SCALE
from ..bench.paired_tests import LEVEL, holm
from ..bench.rows import Row
from .results import Study

PAPER = "Diff-Instruct++, arXiv 2410.18881"


STRENGTHS = ("reward_scale", "pull")
"""Settings that say how strongly the rewards pull; where both vary, the first one's values are compared."""


@dataclass(frozen=True)
class Change:
    """A figure's change from one value of a setting to another.

    Attributes:
        low: end of the 95 % interval; minus infinity with a single matched pair.
        high: its other end.
        pairs: how many cells were matched.
        effect: the mean in standard deviations over prompts; None for a number of the whole set.
        p_value: two-sided, of Student's t; corrected where it stands among others.
    """

    figure: str
    setting: str
    start: str
    end: str
    mean: float
    low: float
    high: float
    pairs: int
    effect: float | None = None
    p_value: float = 0.0

    @property
    def certain(self) -> bool:
        """Whether the interval and the p value both say that there is a change."""
        return (self.low > 0 or self.high < 0) and self.p_value < LEVEL

    @property
    def direction(self) -> str:
        """`rises`, `falls`, or empty where that is not certain or too little to matter."""
        if not self.certain or (self.effect is not None and not matters(self.effect)):
            return ""
        return "rises" if self.mean > 0 else "falls"

    def verdict(self) -> str:
        """The direction, or why there is none."""
        if not math.isfinite(self.low):
            return "one pair, no interval"
        if self.certain and not self.direction:
            return f"less than {LEAST_EFFECT:g} standard deviations over prompts"
        return self.direction or "no measurable change"

    def text(self) -> str:
        """`emoji-clip +1.20 (0.80 to 1.60)`."""
        if not math.isfinite(self.low):
            return f"{self.figure} {number_text(self.mean, '+.3g')} (one pair of cells, no interval)"
        return f"{self.figure} {number_text(self.mean, '+.3g')} ({number_text(self.low)} to {number_text(self.high)})"


@dataclass(frozen=True)
class Claim:
    """What a paper leads one to expect, and what was seen.

    Attributes:
        verdict: `seen`, `not seen`, `cannot be said`, or for which rewards it was seen and for which not.
        numbers: the changes that the verdict rests on.
    """

    expectation: str
    verdict: str
    numbers: str
    source: str = PAPER


def ordered(values: Sequence[str]) -> list[str]:
    """Numbers by size, anything else as it came."""
    try:
        return sorted(values, key=float)
    except ValueError:
        return list(values)


def change(
    study: Study, figure: str, setting: str, start: str, end: str, only: Mapping[str, str] | None = None
) -> Change | None:
    """The change of a figure between two values of a setting; None where no cells match.

    Args:
        study: the cells.
        figure: its name.
        setting: what differs.
        start: its value before.
        end: its value after.
        only: other settings that the cells must have.
    """
    table: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for cell, row in study.cells.values():
        values = dict(cell.values)
        if figure not in row.figures or any(values.get(name) != value for name, value in (only or {}).items()):
            continue
        at = values.pop(setting, "")
        table.setdefault(tuple(sorted(values.items())), {})[at] = row.figures[figure].mean
    differences = [cells[end] - cells[start] for cells in table.values() if start in cells and end in cells]
    if not differences:
        return None
    mean, reach, p_value = sum(differences) / len(differences), math.inf, 1.0
    if len(differences) > 1:
        from scipy.stats import t

        variance = sum((value - mean) ** 2 for value in differences) / (len(differences) - 1)
        error = math.sqrt(variance / len(differences))
        reach = float(t.ppf(0.975, len(differences) - 1)) * error
        if mean:
            p_value = 2 * float(t.sf(abs(mean) / error, len(differences) - 1)) if error else 0.0
    spread = _spread_over_prompts(study.rows, figure)
    effect = None if spread is None else mean / spread if spread else math.copysign(math.inf, mean) if mean else 0.0
    return Change(figure, setting, start, end, mean, mean - reach, mean + reach, len(differences), effect, p_value)


def _spread_over_prompts(rows: Sequence[Row], figure: str) -> float | None:
    """Root mean square over trainings of a figure's standard deviation over prompts; None where it has no value a
    prompt."""
    values = [row.figures[figure].per_prompt for row in rows if figure in row.figures]
    variances = [
        torch.tensor(column, dtype=torch.float64).var().item()
        for column in values
        if column is not None and len(column) > 1
    ]
    return math.sqrt(sum(variances) / len(variances)) if variances else None


def changes(study: Study, setting: str) -> dict[str, list[Change]]:
    """For each figure, the changes from each value of a setting to the next, and from the first to the last, with p
    values corrected for all of them."""
    values = ordered(study.settings[setting])
    steps = list(pairwise(values)) + ([(values[0], values[-1])] if len(values) > 2 else [])
    by_figure = {}
    for figure in study.figures("reward", "judge", "metric"):
        made = [change(study, figure, setting, start, end) for start, end in steps]
        by_figure[figure] = [item for item in made if item is not None]
    adjusted = iter(holm([item.p_value for made in by_figure.values() for item in made]))
    return {figure: [replace(item, p_value=next(adjusted)) for item in made] for figure, made in by_figure.items()}


def claims(study: Study) -> list[Claim]:
    """What the papers say of the settings that vary here, held against the cells."""
    made = []
    strength = next((name for name in STRENGTHS if len(_strengths(study, name)) > 1), STRENGTHS[0])
    values = _strengths(study, strength)
    if len(values) > 1:
        made += [_reward_rises(study, strength, values), _fidelity_falls(study, strength, values)]
    if len(study.settings.get("guidance", ())) > 1:
        made.append(_guidance_rewards(study, ordered(study.settings["guidance"]), strength, values))
    return made


def _strengths(study: Study, setting: str) -> list[str]:
    """Values of a setting that says how strongly rewards pull, by size; a scale that is measured has no place there."""
    return ordered([value for value in study.settings.get(setting, ()) if value != AUTO_SCALE])


def _trained(study: Study) -> list[str]:
    names = {name for row in study.rows for name in row.subject.trained_on}
    return [name for name in study.figures("reward") if name in names] or study.figures("reward")


def _verdict(ways: Mapping[str, str]) -> str:
    """Whether all figures go as expected (`rises`) or the other way; where only some do, which, and the others."""
    groups = {way: [name for name, own in ways.items() if own == way] for way in ("rises", "falls", "")}
    if not groups["rises"]:
        return "not seen" if groups["falls"] else "cannot be said"
    if len(groups["rises"]) == len(ways):
        return "seen"
    parts = [f"seen for {' and '.join(groups['rises'])}"]
    parts += [f"not for {' and '.join(groups['falls'])}"] if groups["falls"] else []
    parts += [f"not measurable for {' and '.join(groups[''])}"] if groups[""] else []
    return ", ".join(parts)


def _reward_rises(study: Study, strength: str, scales: Sequence[str]) -> Claim:
    made = [change(study, name, strength, scales[0], scales[-1]) for name in _trained(study)]
    seen = [item for item in made if item is not None]
    return Claim(
        f"The trained rewards rise with {strength} (here from {scales[0]} to {scales[-1]}).",
        _verdict({item.figure: item.direction for item in seen}),
        "; ".join(item.text() for item in seen),
        f"{PAPER}, section 4",
    )


def _fidelity_falls(study: Study, strength: str, scales: Sequence[str]) -> Claim:
    """The best mean of a distance is reached before the largest reward scale, and left behind measurably.

    Two values cannot show a turn, and a difference that cannot be measured says neither that there is one nor that
    there is none.
    """
    expectation = f"Image fidelity falls past a point as {strength} grows."
    measured = study.fidelity() or study.figures("judge")
    if not measured:
        return Claim(expectation, "cannot be said", "no distance to real images and no judge was measured")
    if len(scales) < 3:
        reason = f"{len(scales)} values of {strength} show no turn; three or more would"
        return Claim(expectation, "cannot be said", reason)
    ways, texts = {}, []
    for name in measured:
        sign = -1 if study.figure(name).better == "lower" else 1
        means = {}
        for value in scales:
            rows = [row.figures[name].mean for cell, row in study.cells.values() if cell.values[strength] == value]
            means[value] = sum(rows) / len(rows)
        best = max(scales, key=lambda value: sign * means[value])
        series = ", ".join(f"{number_text(means[value])} at {value}" for value in scales)
        # Where the last value has the best mean, whether fidelity still rises there is what can be said.
        start = best if best != scales[-1] else scales[-2]
        last = change(study, name, strength, start, scales[-1])
        worse, better = ("rises", "falls") if sign < 0 else ("falls", "rises")
        ways[name] = "" if last is None else {worse: "rises", better: "falls"}.get(last.direction, "")
        extreme = "lowest" if sign < 0 else "highest"
        texts.append(f"{name}: {series}; {extreme} at {best}" + (f", from {start} on {last.text()}" if last else ""))
    return Claim(expectation, _verdict(ways), "; ".join(texts), f"{PAPER}, section 4")


def _guidance_rewards(study: Study, values: Sequence[str], strength: str, scales: Sequence[str]) -> Claim:
    """With the least reward there is, guidance alone raises the scores."""
    only = {strength: scales[0]} if scales else {}
    where = f" at {strength} {scales[0]}" if scales else ""
    # From end to end: taking each score's best value would find a rise in noise alone.
    made = [change(study, name, "guidance", values[0], values[-1], only) for name in study.figures("reward", "judge")]
    seen = [item for item in made if item is not None]
    return Claim(
        f"Guidance acts as an implicit reward: scores rise with it by itself{where}.",
        _verdict({item.figure: item.direction for item in seen}),
        "; ".join(f"{item.text()} from {item.start} to {item.end}" for item in seen),
        f"{PAPER}, theorem 3.2",
    )
