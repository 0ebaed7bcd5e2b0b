"""The best combination under constraints that the user names."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import RequestError
from ..naming import unknown_name
from .study import Combination, Study


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
        return f"{self.figure} {'at most' if self.at_most else 'at least'} {self.bound:g}"


def parse_constraint(text: str) -> Constraint:
    """`"emoji-frechet<=10"` or `"emoji-judge>=0.5"`.

    Raises:
        RequestError: it is neither.
    """
    found = re.fullmatch(r"\s*(\S+?)\s*(<=|>=)\s*(\S+)\s*", text)
    try:
        bound = float(found.group(3)) if found else float("nan")
    except ValueError:
        bound = float("nan")
    if found is None or math.isnan(bound):
        raise RequestError(f"'{text}' is no constraint; expected FIGURE<=NUMBER or FIGURE>=NUMBER.")
    return Constraint(found.group(1), found.group(2) == "<=", bound)


@dataclass(frozen=True)
class Choice:
    """The best combination by one figure, or none where no combination keeps to the constraints."""

    figure: str
    constraints: Sequence[Constraint]
    best: Combination | None

    def sentence(self) -> str:
        """What was chosen and why."""
        under = " with " + " and ".join(str(one) for one in self.constraints) if self.constraints else ""
        if self.best is None:
            return f"No combination of settings was found{under}."
        value = self.best.figures[self.figure]
        others = "".join(f", {one.figure} {self.best.figures[one.figure].mean:.4g}" for one in self.constraints)
        return f"The best {self.figure}{under}: {self.best.label} ({value.mean:.4g}{others})."


def choose(study: Study, figure: str, constraints: Sequence[Constraint] = ()) -> Choice:
    """The combination with the best mean of a figure over seeds, among those that keep to every constraint.

    Raises:
        RequestError: a figure was not measured.
    """
    for name in (figure, *(one.figure for one in constraints)):
        if name not in study.figures():
            raise RequestError(unknown_name("figure", name, study.figures()))
    sign = -1 if study.figure(figure).better == "lower" else 1
    fit = [one for one in study.combinations if figure in one.figures and all(rule.holds(one) for rule in constraints)]
    best = max(fit, key=lambda one: sign * one.figures[figure].mean) if fit else None
    return Choice(figure, tuple(constraints), best)
