"""The best combination under constraints that the user names, where one is measurably better than the others."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import RequestError
from ...utils.messages import number_text, unknown_name
from .differences import difference
from .results import Combination, Study


@dataclass(frozen=True)
class Constraint:
    """`emoji-frechet<=10`: a figure, which way, and a number."""

    figure: str
    at_most: bool
    bound: float

    def holds(self, combination: Combination) -> bool:
        """Whether the mean over seeds keeps to it."""
        value = combination.figures[self.figure].mean
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        return f"{self.figure} {'at most' if self.at_most else 'at least'} {number_text(self.bound, 'g')}"


def parse_constraint(text: str) -> Constraint:
    """`"emoji-frechet<=10"` or `"emoji-judge>=0.5"`.

    Raises:
        RequestError: it is not a constraint.
    """
    match = re.fullmatch(r"\s*(\S+?)\s*(<=|>=)\s*(\S+)\s*", text)
    try:
        bound = float(match.group(3)) if match else float("nan")
    except ValueError:
        bound = float("nan")
    if match is None or math.isnan(bound):
        raise RequestError(f"'{text}' is not a constraint; expected FIGURE<=NUMBER or FIGURE>=NUMBER.")
    return Constraint(match.group(1), match.group(2) == "<=", bound)


@dataclass(frozen=True)
class Choice:
    """The best combination by one figure, where one is measurably better than all others that keep to the constraints.

    Attributes:
        figure: its name.
        constraints: what a combination has to keep to, by its means over seeds.
        leading: the combination with the best mean; None where none keeps to the constraints.
        level_with: others that keep to them and are not measurably worse than it.
        candidates: how many keep to them.
        seeds: how many trainings the leading combination has.
        lower: whether less of the figure is better.
    """

    figure: str
    constraints: Sequence[Constraint]
    leading: Combination | None
    level_with: Sequence[Combination] = ()
    candidates: int = 0
    seeds: int = 0
    lower: bool = False

    @property
    def best(self) -> Combination | None:
        """The combination that is measurably better than every other one; None where there is none, or only one."""
        return self.leading if self.candidates > 1 and not self.level_with else None

    def sentence(self) -> str:
        """What was chosen and why, or why nothing was."""
        under = " with " + " and ".join(str(rule) for rule in self.constraints) if self.constraints else ""
        if self.leading is None:
            return f"No combination of settings was found{under}."
        value = self.leading.figures[self.figure]
        others = "".join(
            f", {rule.figure} {number_text(self.leading.figures[rule.figure].mean, '.4g')}" for rule in self.constraints
        )
        numbers = f"{self.leading.label} ({number_text(value.mean, '.4g')}{others})"
        if self.candidates == 1:
            return f"The only combination{under}: {numbers}."
        if self.best is not None and self.best.warnings:
            extreme = "lowest" if self.lower else "highest"
            warned = " and ".join(self.best.warnings)
            return f"The {extreme} {self.figure}{under}: {numbers}, measurably, but with a warning of {warned}."
        if self.best is not None:
            return f"The best {self.figure}{under}: {numbers}, measurably better than all others {self._covers()}."
        level = ", ".join(combination.label for combination in self.level_with[:LEVEL_SHOWN])
        more = len(self.level_with) - LEVEL_SHOWN
        level += f" and {more} more" if more > 0 else ""
        return (
            f"No combination is measurably the best by {self.figure}{under}. The best mean is that of {numbers}; not "
            f"measurably worse {self._covers()}: {level}."
        )

    def _covers(self) -> str:
        if self.seeds > 1:
            return f"over these prompts and {self.seeds} seeds of training"
        return "over these prompts, by one training each, so other seeds may differ"


LEVEL_SHOWN = 3
"""Most combinations that are named as not measurably worse."""


def choose(study: Study, figure: str, constraints: Sequence[Constraint] = ()) -> Choice:
    """The combination with the best mean of a figure over seeds, among those that keep to every constraint, and which
    others cannot be told from it.

    No correction for how many there are is needed to call it the best: it has to be better than every other one, and
    among combinations that are all the same that happens less often the more there are.

    Raises:
        RequestError: a figure was not measured.
    """
    for name in (figure, *(rule.figure for rule in constraints)):
        if name not in study.figures():
            raise RequestError(unknown_name("figure", name, study.figures()))
    sign = -1 if study.figure(figure).better == "lower" else 1
    fit = [
        combination
        for combination in study.combinations
        if all(name in combination.figures for name in (figure, *(rule.figure for rule in constraints)))
        and all(rule.holds(combination) for rule in constraints)
    ]
    if not fit:
        return Choice(figure, tuple(constraints), None)
    leading = max(fit, key=lambda combination: sign * combination.figures[figure].mean)
    level = [
        combination
        for combination in fit
        if combination is not leading and not difference(study, [combination], [leading], figure).measurable
    ]
    level.sort(key=lambda combination: -sign * combination.figures[figure].mean)
    return Choice(figure, tuple(constraints), leading, level, len(fit), len(leading.rows), sign < 0)
