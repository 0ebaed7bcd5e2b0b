"""Whether a submitted row is sound: all of it that follows from the rest of it does, and nothing personal is in it."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import RequestError, first_line
from ..leaderboard.check import text_problem
from .check import names, within
from .golden import ORDER
from .row import MOST_NUMBERS, AcceptedRow, CheckRow, has_path, read_row, settings_digest

LARGEST = 1e12
"""Of a number that was measured; bounds may be farther."""
LONGEST_TEXT = 700
DEEPEST = 6
"""Levels of settings."""
MOST_SETTINGS = 400


def row_problems(row: AcceptedRow) -> list[str]:
    """What is wrong with a row, in words."""
    problems = [problem for what, text in _texts(row) if (problem := text_problem(what, text, LONGEST_TEXT))]
    problems += [f"its {what} names a place on somebody's machine" for what, text in _texts(row) if has_path(text)]
    if any(not text.strip() for text in (row.name, row.reference)):
        problems.append("it names no generator or no reference")
    try:
        datetime.date.fromisoformat(row.date)
    except ValueError:
        problems.append(f"its date {row.date} is not a date")
    if settings_digest(row.settings) != row.settings_digest:
        problems.append("its settings_digest is not the SHA-256 of its settings")
    if row.scores.keys() != row.score_weights.keys():
        problems.append("its scores and score_weights are of different rewards")
    problems += [f"it has {len(scores)} scores of {name} for {len(ORDER)} images" for name, scores in row.scores.items()
        if len(scores) != len(ORDER)]  # fmt: skip
    files = [(file.role, file.source, file.file) for file in row.weights]
    if len(set(files)) != len(files):
        problems.append("one of its weight files is listed twice")
    check_names = set(names())
    missing = check_names - {check.check for check in row.checks}
    if missing:
        problems.append(f"it has no row of the check{'s' * (len(missing) > 1)} {', '.join(sorted(missing))}")
    for number, check in enumerate(row.checks, 1):
        problems += [f"check {number} ({check.check}): {problem}" for problem in _check_problems(check, check_names)]
    seen = [check.verdict for check in row.checks if check.check == "fetch"]
    if "pass" in seen and not row.weights:
        problems.append("it reports fetched files and names none")
    return problems


def _check_problems(check: CheckRow, check_names: set[str]) -> Iterator[str]:
    if check.check not in check_names:
        yield "the check does not exist"
    if len(check.numbers) > MOST_NUMBERS:
        yield f"it has {len(check.numbers)} numbers; expected {MOST_NUMBERS} at most"
    if any(abs(number) > LARGEST for number in check.numbers.values()):
        yield f"it holds a number beyond {LARGEST:g}"
    if any(low > high for low, high in check.bounds.values()):
        yield "a bound's least is above its most"
    lacking = check.bounds.keys() - check.numbers.keys()
    if lacking:
        yield f"it has bounds of {', '.join(sorted(lacking))} and no such number"
    elif check.verdict == "pass" and not within(check.numbers, check.bounds):
        yield "it says pass, and a number lies outside its bounds"
    elif check.verdict == "fail" and check.bounds and within(check.numbers, check.bounds):
        yield "it says fail, and every number lies in its bounds"
    if check.verdict != "pass" and not check.why.strip():
        yield f"it says {check.verdict}, and not why"
    yield from _own_limits(check)


def _own_limits(check: CheckRow) -> Iterator[str]:
    """A row's bounds may not be wider than the toolkit's own."""
    from ...events import MOST
    from .checks import load, step, stock

    limits = {
        ("stock", "largest"): max(stock.LARGEST.values()),
        ("stock", "mean"): max(stock.MEAN.values()),
        ("step", "of_plan"): step.MOST_ABOVE_PLAN,
        ("pull", "pull"): MOST,
        ("load", "alpha"): load.SAME_ALPHA,
    }
    for name, (_, high) in check.bounds.items():
        limit = limits.get((check.check, name))
        if limit is not None and high > limit and not math.isclose(high, limit):
            yield f"its bound of {name} is {high:g}, and the toolkit's {limit:g}"


def _texts(row: AcceptedRow) -> Iterator[tuple[str, str]]:
    """Every text of a row, with what it is."""
    yield from (("name", row.name), ("reference", row.reference))
    yield from (("reward", name) for name in row.rewards)
    yield from (("machine", str(value)) for value in row.machine.model_dump().values())
    yield ("toolkit", row.toolkit.version)
    for file in row.weights:
        yield from (("weight file", text) for text in (file.role, file.source, file.file))
    for check in row.checks:
        yield from (("check", text) for text in (check.compared, check.expected, check.measured, check.why))
        yield from (("number's name", name) for name in (*check.numbers, *check.bounds))
    yield from (("reward", text) for pair in row.score_weights.items() for text in pair)
    yield from (("setting", text) for text in _texts_in(row.settings, 0))


def _texts_in(value: Any, depth: int) -> Iterator[str]:
    if depth > DEEPEST:
        yield "\N{NULL}"  # which is no plain text
    elif isinstance(value, dict):
        for key, child in list(value.items())[:MOST_SETTINGS]:
            yield str(key)
            yield from _texts_in(child, depth + 1)
    elif isinstance(value, list):
        for child in value[:MOST_SETTINGS]:
            yield from _texts_in(child, depth + 1)
    elif isinstance(value, str):
        yield value


def check_rows(paths: Sequence[Path]) -> tuple[list[AcceptedRow], list[str]]:
    """Check submissions.

    Returns:
        The rows that can be read, and a sentence for each problem, naming the file.
    """
    rows, problems = [], []
    seen: dict[str, Path] = {}
    for path in paths:
        try:
            row = read_row(path)
            rows.append(row)
            problems += [f"{path}: {problem}." for problem in row_problems(row)]
        except RequestError as error:
            problems.append(str(error))
            continue
        except (ArithmeticError, ValueError, RecursionError) as error:  # whatever is wrong with it, others go on
            problems.append(f"{path} cannot be checked: {first_line(error)}.")
            continue
        text = row.model_dump_json()
        if text in seen:
            problems.append(f"{path}: the same row stands in {seen[text]} already.")
        seen.setdefault(text, path)
    return rows, problems
