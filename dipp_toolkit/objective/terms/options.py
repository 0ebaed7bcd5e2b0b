"""Options of a term: fields of its dataclass that settings may fill, `--set term.NAME.OPTION=VALUE`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any, TypeVar, get_type_hints

from ...errors import RequestError
from ...utils.messages import shown, unknown_name

Value = TypeVar("Value")


def option(default: Value, description: str) -> Value:
    """A dataclass field that settings may fill.

    Args:
        default: its value where nothing is set.
        description: one line for messages and tables.
    """
    return field(default=default, metadata={"option": description})


def options_of(term: type) -> dict[str, str]:
    """The options of a term's dataclass with their descriptions."""
    return {member.name: member.metadata["option"] for member in fields(term) if "option" in member.metadata}


def read_options(term: type, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Validate what settings say against the types of the term's fields.

    Args:
        term: its dataclass; annotations may carry pydantic's bounds, `Annotated[float, Field(gt=0)]`.
        name: the term's, for messages.
        values: options by name.

    Raises:
        RequestError: an option is unknown or its value is invalid.
    """
    from pydantic import TypeAdapter, ValidationError

    options, hints = options_of(term), get_type_hints(term, include_extras=True)
    read = {}
    for key, value in values.items():
        if key not in options:
            known = f"does not have this option. {unknown_name('option', key, options)}"
            raise RequestError(f"The term '{name}' {known if options else f'has no options; leave {shown(key)} out.'}")
        try:
            read[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            what = error.errors()[0]["msg"]
            raise RequestError(
                f"The option {key} of the term '{name}' cannot be {value!r}: {what[0].lower()}{what[1:]}."
            ) from error
    return read
