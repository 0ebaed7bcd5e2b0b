"""YAML as settings need it: texts, numbers, true, false, null, lists and mappings, and nothing that could do more.

PyYAML's safe loader is not enough: it follows aliases, with which a few lines expand to gigabytes, makes dates and
sets, reads integers of any length and raises errors of many kinds. Here those are refused with a sentence, and dates
stay texts.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from ..errors import RequestError, first_line
from .messages import is_broken, quoted, shown

MOST_BYTES = 2**18
"""Of a file; settings take a few thousand."""
LARGEST = 2**63
"""Whole numbers are smaller than this."""
DEEPEST = 32
"""Lists and mappings inside one another."""
PREFIX = "tag:yaml.org,2002:"
KINDS = ("null", "bool", "int", "float", "str", "seq", "map")


class YamlTextError(ValueError):
    """A text that is not YAML of this kind; the message says why."""


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader without what JSON has no word for."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            name = self.peek_event().anchor
            raise YamlTextError(f"the alias *{name} is not followed; write out what it stands for")
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: Any) -> int:
        value: int = super().construct_yaml_int(node)
        if abs(value) >= LARGEST:
            raise YamlTextError(f"a whole number is too large: {node.value[:20]}...")
        return value


_CONSTRUCTORS: dict[Any, Any] = yaml.SafeLoader.yaml_constructors  # None is for tags that have none
_PlainLoader.yaml_constructors = {
    tag: make for tag, make in _CONSTRUCTORS.items() if tag is None or tag.removeprefix(PREFIX) in KINDS
} | {f"{PREFIX}int": _PlainLoader.construct_yaml_int}
_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.removeprefix(PREFIX) in KINDS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str) -> Any:
    """The value that a text means.

    Raises:
        YamlTextError: it is not YAML, or makes more than plain values.
    """
    try:
        return yaml.load(text, _PlainLoader)
    except YamlTextError:
        raise
    except RecursionError:
        raise YamlTextError("it is nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise YamlTextError(shown(f"{error.problem or first_line(error)}{where}")) from error
    except yaml.YAMLError as error:
        raise YamlTextError(shown(first_line(error))) from error
    # What PyYAML's constructors raise for `!!int ""`, `!!bool x` and their like.
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise YamlTextError(f"a value does not fit its tag: {shown(first_line(error))}") from error


def load_yaml(path: Path, what: str) -> Any:
    """The value that a file holds.

    Args:
        path: the file.
        what: it is, for messages, such as `settings file`.

    Raises:
        RequestError: it is missing, too large, or not such YAML.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise RequestError(f"The {what} {path} has more than {MOST_BYTES // 1024} KB, far more than it may need.")
        return parse_yaml(data.decode("utf-8"))
    except OSError as error:
        raise RequestError(f"Cannot read the {what} {shown(path)}: {error.strerror}.") from error
    except ValueError as error:  # not UTF-8, not a path
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeError) else str(error)
        raise RequestError(f"The {what} {shown(path)} is not valid YAML: {reason.rstrip('.')}.") from error


def plain_value(value: Any, what: str, depth: int = 0) -> Any:
    """A value as a settings file holds and gives back: texts, numbers, lists and mappings; paths become texts.

    Args:
        value: anything.
        what: it is, for messages.
        depth: how far inside of it we are.

    Raises:
        ValueError: it holds something else, or is nested too deeply.
    """
    if depth > DEEPEST:
        raise ValueError(f"{what} are nested too deeply")
    if isinstance(value, dict):
        return {plain_value(str(key), what): plain_value(item, what, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(item, what, depth + 1) for item in value]
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        if is_broken(value):
            raise ValueError(f"{what} hold {quoted(value)}, which is not valid text")
        return value
    if value is None or isinstance(value, bool):
        return value
    if (isinstance(value, int) and abs(value) < LARGEST) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"{what} hold {quoted(value)}; expected texts, finite numbers, lists and mappings")
