"""JSON files of the toolkit's own, held against the form they were written in before anything is taken from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ..errors import RequestError
from .json_files import read_json
from .messages import shown

Form = TypeVar("Form")


def read_form(path: Path, form: type[Form], then: str) -> Form:
    """What a JSON file of the toolkit's own holds, in the form that it was written in.

    Args:
        path: the file.
        form: a dataclass or a pydantic model.
        then: a sentence that says what to do where the file is damaged.

    Raises:
        RequestError: as `read_json` does, or something in it is missing or of another type; the message names it.
    """
    return in_form(read_json(path, then=then), form, str(path), then)


def in_form(content: Any, form: type[Form], what: str, then: str) -> Form:
    """The content of a JSON file, or of a line of one, as a form.

    Args:
        content: as it was read.
        form: see `read_form`.
        what: the file, for messages.
        then: see `read_form`.

    Raises:
        RequestError: something is missing or of another type.
    """
    try:  # as JSON and not as Python, where a dataclass of a strict form would have to be one already
        return TypeAdapter(form).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        raise RequestError(f"{what} is damaged: {mistake_in(error)}. {then}".rstrip()) from error


def mistake_in(error: ValidationError) -> str:
    """The first mistake that pydantic found, where it is and what it is: `"rounds.0.votes: field required"`."""
    wrong = error.errors()[0]
    return f"{shown('.'.join(map(str, wrong['loc'])) or 'all of it')}: {wrong['msg'].rstrip('.').lower()}"
