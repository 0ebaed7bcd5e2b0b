"""What a check is, what it finds, and the checks there are."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from . import checks

FAR = 1e30
"""A bound where there is none; JSON has no infinity."""
Verdict = Literal["pass", "fail", "skipped", "not seen"]
"""`not seen`: what was expected did not show, without a fault: a reward that did not rise in a short alignment."""


@dataclass(frozen=True)
class Outcome:
    """A row.

    Attributes:
        compared: what was looked at, in a few words.
        expected: what it was held against.
        measured: what was found.
        verdict: pass, fail, skipped or not seen.
        why: of everything but a pass, and what to do.
        numbers: what was measured, by name.
        bounds: by the name of a number, the least and the most that it may be; `FAR` where there is no limit.
        check: name of the check, filled in by whoever runs it.
    """

    compared: str
    expected: str
    measured: str
    verdict: Verdict
    why: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    check: str = ""


def judged(
    compared: str,
    expected: str,
    measured: str,
    numbers: Mapping[str, float],
    bounds: Mapping[str, tuple[float, float]],
    why: str = "",
) -> Outcome:
    """A row whose verdict follows from its numbers: pass where each lies in its bounds.

    Args:
        compared: as of `Outcome`, and likewise the others.
        why: of a fail.
    """
    holds = within(numbers, bounds)
    return Outcome(
        compared, expected, measured, "pass" if holds else "fail", "" if holds else why, dict(numbers), dict(bounds)
    )


def within(numbers: Mapping[str, float], bounds: Mapping[str, tuple[float, float]]) -> bool:
    """Whether every number that has bounds lies in them; a NaN lies in none."""
    return all(low <= numbers.get(name, float("nan")) <= high for name, (low, high) in bounds.items())


def equal(compared: str, expected: object, measured: object, why: str) -> Outcome:
    """A row about two things that have to be the same."""
    same = expected == measured
    return Outcome(compared, str(expected), str(measured), "pass" if same else "fail", "" if same else why)


def skipped(compared: str, why: str) -> Outcome:
    """A row about what was not looked at."""
    return Outcome(compared, "", "", "skipped", why)


def failed(compared: str, why: str, expected: str = "", measured: str = "") -> Outcome:
    """A row about what went wrong."""
    return Outcome(compared, expected, measured, "fail", why)


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: what its rows are called, and `--skip` names.
        place: in the order of the table; checks of one place come by their names.
        run: looks at a `Subject` and gives rows one after the other; those before something that it raises count.
        asks: what it looks at, in a line.
    """

    name: str
    place: int
    run: Callable[[Any], Iterable[Outcome]]
    asks: str


@cache
def names() -> tuple[str, ...]:
    """The names of all checks, without importing one."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(checks.__path__)))


@cache
def all_checks() -> tuple[Check, ...]:
    """Every file of `checks/`."""
    modules = [importlib.import_module(f"{checks.__name__}.{name}").CHECK for name in names()]
    return tuple(sorted(modules, key=lambda check: (check.place, check.name)))
