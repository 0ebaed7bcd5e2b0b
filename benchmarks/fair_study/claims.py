"""Which of two is better, as far as the numbers say so: no sentence here can say what its numbers do not.

Better means four things at once: the paired test over prompts finds a difference after Holm's correction over all pairs
of the table, the paired interval leaves zero out, the difference is at least `LEAST_EFFECT` standard deviations over
prompts, and every seed of the one is above every seed of the other. The verdict is no field that could be set: it is
read off the numbers each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.fair_study.records import Record
from dipp_toolkit.evaluation.intervals import LEAST_EFFECT, Interval, matters, mean_interval
from dipp_toolkit.experiments.bench.paired_tests import Comparison, compare_values, holm

JUDGE = "judge"


@dataclass(frozen=True)
class Runs:
    """What is compared as one: the runs of several seeds, or one column that was not trained here.

    Attributes:
        name: what they are called.
        scores: the judge's mean over noises for every run and prompt, `(runs, prompts)`.
    """

    name: str
    scores: Float[Tensor, "runs prompts"]

    @classmethod
    def of(cls, name: str, rows: Sequence[Record]) -> Runs:
        """From rows of the same prompts and noises, one a run.

        Raises:
            ValueError: a row has no scores prompt by prompt, or of other prompts, or there is no row.
        """
        if len({len(row.per_prompt) for row in rows}) != 1 or not rows[0].per_prompt:
            raise ValueError(f"The rows of {name} cannot be compared: they need scores of the same prompts.")
        return cls(name, torch.tensor([row.per_prompt for row in rows], dtype=torch.float64))

    @classmethod
    def pooled(cls, name: str, groups: Sequence[Sequence[Record]]) -> Runs:
        """Of several settings, each run seed by seed: run k is the mean over the settings' runs k."""
        return cls(name, torch.stack([cls.of(name, rows).scores for rows in groups]).mean(0))

    @property
    def means(self) -> tuple[float, ...]:
        """The judge's mean of each run."""
        return tuple(self.scores.mean(1).tolist())

    @property
    def interval(self) -> Interval:
        """The mean over prompts, noises and runs with its 95 % interval over prompts."""
        return mean_interval(self.scores.mean(0))


@dataclass(frozen=True)
class Claim:
    """Two compared: everything else is read off.

    Attributes:
        comparison: prompt by prompt, means over seeds, corrected for what was compared beside it.
        seeds: means of the runs of each, by name.
    """

    comparison: Comparison
    seeds: Mapping[str, tuple[float, ...]]

    @property
    def apart(self) -> bool:
        """Whether every run of one is above every run of the other."""
        a, b = self.seeds[self.comparison.a], self.seeds[self.comparison.b]
        return min(a) > max(b) or min(b) > max(a)

    @property
    def winner(self) -> str:
        """Who is better; empty where that cannot be said."""
        return self.comparison.winner if self.apart else ""

    @property
    def sentence(self) -> str:
        """What can be said, with the numbers that say it."""
        pair = self.comparison
        first, second = (pair.b, pair.a) if pair.difference >= 0 else (pair.a, pair.b)
        low, high = (pair.low, pair.high) if pair.difference >= 0 else (-pair.high, -pair.low)
        size, effect = abs(pair.difference), abs(pair.effect)
        numbers = f"{size:.2f} [{low:.2f}, {high:.2f}], {effect:.2f} standard deviations over prompts"
        seeds = f"runs {_range(self.seeds[first])} and {_range(self.seeds[second])}"
        if self.winner:
            return f"{first} is better than {second} by {numbers}; {seeds}."
        if pair.certain and not matters(pair.effect):
            why = f"the difference is smaller than {LEAST_EFFECT:g} standard deviations"
        elif pair.certain:
            why = "their runs overlap"
        else:
            why = "the test over prompts does not tell them apart"
        return f"{first} and {second}: no claim, {why} ({numbers}; {seeds})."


def _range(means: Sequence[float]) -> str:
    return f"{means[0]:.2f}" if len(means) == 1 else f"{min(means):.2f} to {max(means):.2f}"


def claims_of(compared: Sequence[Runs], pairs: Sequence[tuple[str, str]] | None = None) -> list[Claim]:
    """Pairs of runs against each other, corrected together.

    Args:
        compared: of the same prompts and noises.
        pairs: names of those that are compared; all pairs where None.
    """
    named = {runs.name: runs for runs in compared}
    chosen = list(combinations(named, 2)) if pairs is None else list(pairs)
    plain = [compare_values(a, b, JUDGE, named[a].scores.mean(0), named[b].scores.mean(0)) for a, b in chosen]
    adjusted = holm([pair.p_value for pair in plain])
    return [
        Claim(replace(pair, p_adjusted=p), {name: named[name].means for name in (pair.a, pair.b)})
        for pair, p in zip(plain, adjusted, strict=True)
    ]
