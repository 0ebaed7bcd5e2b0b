"""Whether a submission is sound: everything in a row that can be computed again from the row alone is."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ...errors import RequestError, first_line
from ...evaluation.intervals import bootstrap_interval, mean_interval
from ..bench.rows import BOOTSTRAP, SCHEMA, Figure, Row, read_rows

MOST_BYTES = 200_000
LONGEST_LABEL = 60
PICTURE = re.compile(r"data:image/(png|webp|jpeg);base64,[A-Za-z0-9+/]+={0,2}")
RELATIVE = 1e-4
LARGEST = 1e12
"""Of a figure, either way; beyond it the digits of a mean are no longer those of its values."""
MOST_EVALUATIONS = 1_000_000
LONGEST_TEXT = 4000
JOINERS = "\u200c\u200d"
"""Letters that are not printed and join those beside them."""


def _near(a: float, b: float, scale: float) -> bool:
    return abs(a - b) <= RELATIVE * max(abs(a), abs(b), scale)


def _figure_problems(name: str, figure: Figure, row: Row) -> Iterator[str]:
    numbers = [number for number in (figure.mean, figure.low, figure.high) if number is not None]
    if not all(map(math.isfinite, numbers)):
        yield f"{name} holds a number that is not finite"
        return
    if max(map(abs, [*numbers, *(figure.per_prompt or ())])) > LARGEST:
        yield f"{name} holds a number beyond {LARGEST:g}"
        return
    if (figure.low is None) != (figure.high is None):
        yield f"{name} has one end of an interval only"
    if figure.low is not None and figure.high is not None and not figure.low <= figure.mean <= figure.high:
        yield f"{name}: the mean {figure.mean:g} lies outside its interval {figure.low:g} to {figure.high:g}"
    if figure.per_prompt is None:
        if figure.role in ("reward", "judge") and row.kind == "measured":
            yield f"{name} has no value for each prompt, so it cannot be checked or compared"
        return
    if len(figure.per_prompt) != row.protocol.count:
        yield f"{name} has {len(figure.per_prompt)} values for {row.protocol.count} prompts"
        return
    if not all(map(math.isfinite, figure.per_prompt)):
        yield f"{name} holds a value of a prompt that is not finite"
        return
    yield from _recomputed(name, figure, figure.per_prompt, row.intervals)
    for category, (mean, low, high) in figure.by_category.items():
        if not low <= mean <= high:
            yield f"{name}: the category {category} has a mean outside its interval"


def _recomputed(name: str, figure: Figure, per_prompt: Sequence[float], method: str) -> Iterator[str]:
    values = torch.tensor(per_prompt, dtype=torch.float64)
    again = bootstrap_interval(values) if method == BOOTSTRAP else mean_interval(values)
    scale = (again.high - again.low) or 1e-9
    if not _near(again.mean, figure.mean, scale):
        yield f"{name}: its mean is {figure.mean:g}, and the mean of its prompts' values is {again.mean:g}"
    elif figure.low is None or figure.high is None:
        yield f"{name} has values for each prompt and no interval"
    elif abs(again.low - figure.low) + abs(again.high - figure.high) > 0.02 * scale:
        stated = f"{figure.low:g} to {figure.high:g}"
        yield f"{name}: its interval is {stated}, and computed again {again.low:g} to {again.high:g}"


def row_problems(row: Row) -> list[str]:
    """What is wrong with a row, in words."""
    problems = _identity_problems(row)
    for picture in row.pictures:
        if not PICTURE.fullmatch(picture.data):
            problems.append(f"the picture of '{picture.prompt[:40]}' is not a PNG, WebP or JPEG as a data: address")
        elif len(picture.data) > MOST_BYTES:
            problems.append(f"the picture of '{picture.prompt[:40]}' is larger than {MOST_BYTES // 1000} kB")
    for name, figure in row.figures.items():
        problems += _figure_problems(name, figure, row)
    problems += [problem for what, text in _texts(row) if (problem := text_problem(what, text))]
    return problems


def text_problem(what: str, text: str, longest: int = LONGEST_TEXT) -> str:
    """What is wrong with a text that a person is shown, in words; empty where nothing is.

    Args:
        what: it is, for the message.
        text: on one line.
        longest: characters that it may have.
    """
    if len(text) > longest or not all(letter.isprintable() or letter in JOINERS or letter.isspace() for letter in text):
        return f"its {what} is not plain text of up to {longest} characters"
    if any(letter in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029" for letter in text):
        return f"its {what} has more than one line"
    return ""


def _texts(row: Row) -> Iterator[tuple[str, str]]:
    """What a person is shown of a row, its prompts excepted: those are the prompt set's."""
    yield from (("command", row.command), ("baseline", row.baseline), ("source", row.source))
    yield from (("name", row.subject.name), ("start", row.subject.started_from), ("prompt set", row.protocol.prompts))
    for warning in row.warnings:
        yield from (("warning's name", warning.name), ("warning", warning.text))
    yield from (("note", note) for note in row.notes)
    yield from (("figure's name", name) for name in row.figures)
    yield from (("trained reward", name) for name in row.subject.trained_on)
    for what, table in (("setting", row.subject.settings), ("environment", row.environment)):
        for key, value in table.items():
            yield from ((what, key), (what, str(value)))


def _identity_problems(row: Row) -> list[str]:
    problems = []
    if row.schema_version != SCHEMA:
        problems.append(f"its schema is {row.schema_version}; expected {SCHEMA}")
    label = row.label
    if not label.strip() or len(label) > LONGEST_LABEL or not label.isprintable():
        problems.append(f"its label is empty, longer than {LONGEST_LABEL} characters, or not plain text")
    if not row.figures:
        problems.append("it has no figure")
    evaluations = row.subject.evaluations
    if evaluations is not None and not 1 <= evaluations <= MOST_EVALUATIONS:
        problems.append(f"it takes {evaluations} evaluations an image; expected 1 to {MOST_EVALUATIONS:,}")
    if row.kind == "reported":
        if not row.source.strip():
            problems.append("it is reported and names no source")
    else:
        if not re.fullmatch(r"[0-9a-f]{64}", row.protocol.digest):
            problems.append("its protocol has no digest of the prompts, 64 hexadecimal digits")
        if not re.fullmatch(r"[0-9a-f]{64}", row.subject.fingerprint):
            problems.append("it has no fingerprint of the weights, 64 hexadecimal digits")
        if not row.protocol.seeds or row.protocol.count < 1 or min(row.protocol.size) < 1:
            problems.append("its protocol lacks seeds, prompts or the images' size")
        if not row.command.strip():
            problems.append("it has no command to measure it again")
    return problems


def check_files(paths: Sequence[Path]) -> tuple[int, list[str]]:
    """Check submissions.

    Returns:
        How many rows there are, and a sentence for each problem, naming file and row.
    """
    count, problems = 0, []
    seen: dict[tuple[str, ...], str] = {}
    for path in paths:
        try:
            rows = read_rows(path)
        except RequestError as error:
            problems.append(str(error))
            continue
        if not rows:
            problems.append(f"{path} has no rows.")
        for number, row in enumerate(rows, 1):
            count += 1
            where = f"{path}, row {number} ('{row.label[:LONGEST_LABEL]}')"
            try:
                problems += [f"{where}: {problem}." for problem in row_problems(row)]
            except (ArithmeticError, ValueError, RuntimeError) as error:  # whatever is wrong with it, others go on
                problems.append(f"{where}: it cannot be checked: {first_line(error)}.")
            key = (row.subject.fingerprint, row.protocol.digest, str(row.protocol.seeds), row.label, row.source)
            if key in seen:
                problems.append(f"{where}: the same weights under the same protocol are in {seen[key]} already.")
            seen.setdefault(key, where)
    return count, problems
