"""What a reward has to know of each prompt beside its text, from a file of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..errors import RequestError, RunError, first_line
from ..utils.jsonl import numbered_lines
from ..utils.messages import nearest, shown

Row = TypeVar("Row")


def read_by_prompt(path: Path, what: str, read: Callable[[Any], tuple[str, Row]], example: str) -> dict[str, Row]:
    """The rows of a file by their prompts, white space around these left out.

    Args:
        path: of JSON lines; empty ones are passed over.
        what: they are, in the plural, for messages: `"metadata"`.
        read: the prompt and the row from what a line holds; its `ValueError` says what is wrong.
        example: of a line, for messages.

    Raises:
        RequestError: the file cannot be read or is empty, a line is not such a row, or two lines say different things
            of one prompt.
    """
    rows: dict[str, Row] = {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"The {what} {path} cannot be read: {first_line(error)}.") from error
    for number, line in numbered_lines(text):
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"The {what} {path}, line {number}, are not JSON: {first_line(error)}.") from None
        try:
            prompt, row = read(content)
        except ValueError as error:
            raise RequestError(
                f"The {what} {path}, line {number}: {error}. Expected a line such as {example}"
            ) from None
        if rows.setdefault(prompt.strip(), row) != row:
            raise RequestError(f"The {what} {path} say two different things of the prompt '{shown(prompt.strip())}'.")
    if not rows:
        raise RequestError(f"The {what} {path} are empty; expected a line a prompt, such as {example}")
    return rows


def row_of(rows: Mapping[str, Row], prompt: str, lacking: str, advice: str) -> Row:
    """The row of a prompt.

    Args:
        rows: from `read_by_prompt`.
        prompt: its text.
        lacking: how the message begins where there is none, up to the prompt.
        advice: how it ends.

    Raises:
        RunError: there is none; the message names the prompt that is most like it.
    """
    row = rows.get(prompt.strip())
    if row is not None:
        return row
    guess = nearest(prompt, rows)
    hint = f" The one most like it is '{guess}'." if guess else ""
    raise RunError(f"{lacking} the prompt '{shown(prompt)}'.{hint} {advice}")
