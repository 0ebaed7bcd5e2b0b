"""Whether an option's value, as a settings file or a command line gives it, is what its parameter's annotation says."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

PLAIN = frozenset({str, bool, int, float, list, tuple, dict, type(None)})
"""Types of the values that are looked at; objects of other types come from Python, from those who know what they do."""
MAPPINGS = frozenset({dict, Mapping, MutableMapping})
LISTS = frozenset({list, tuple, set, frozenset, Sequence, MutableSequence, AbstractSet, Collection, Iterable})
WORDS: dict[Any, str] = {
    str: "a text", Path: "a path or a name", bool: "true or false", int: "a whole number", float: "a number",
    **dict.fromkeys(MAPPINGS, "a mapping"), **dict.fromkeys(LISTS, "a list"),
}  # fmt: skip


def annotations_of(factory: Callable[..., Any]) -> dict[str, Any]:
    """What the parameters of a factory are annotated with; nothing where a name in an annotation is not known."""
    try:
        parameters = inspect.signature(factory, eval_str=True).parameters.values()
    except Exception:  # noqa: BLE001 -- anybody's annotations, which are evaluated; a factory works without them
        return {}
    return {each.name: each.annotation for each in parameters if each.annotation is not each.empty}


def expected_instead(value: Any, annotation: Any) -> str:
    """What an annotation wants instead of a value, in words; empty where the value will do.

    Known are texts, paths, numbers, booleans, lists, mappings, None, literals, protocols and unions of these. A whole
    number is a number, a number without a fraction a whole one, 0 and 1 are booleans, and a boolean is no number. What
    lists and mappings hold is not looked at. Whatever else stands in an annotation takes every value.

    Args:
        value: of the option.
        annotation: of its parameter, evaluated.
    """
    kinds = list(_kinds(annotation))
    if type(value) not in PLAIN or any(_takes(kind, value) for kind in kinds):
        return ""
    words = _all_words(kinds)
    would_be_text = isinstance(value, (bool, int, float)) and (str in kinds or Path in kinds)
    return " or ".join(words or ["nothing"]) + "; in quotes it would be one" * would_be_text


def words_of(annotation: Any) -> str:
    """What an annotation takes, in words: `"a number or nothing"`; empty where it is none of the kinds that are known.

    Args:
        annotation: of a parameter, evaluated.
    """
    kinds = list(_kinds(annotation))
    if not all(kind in WORDS or kind in (None, type(None)) or get_origin(kind) is Literal for kind in kinds):
        return ""
    empty = ["nothing"] * any(kind in (None, type(None)) for kind in kinds)
    return " or ".join([*_all_words(kinds), *empty])


def _all_words(kinds: Sequence[Any]) -> list[str]:
    """Each once; a text that may be a path is called one."""
    return list(dict.fromkeys(filter(None, (_words(kind) for kind in kinds if not (kind is str and Path in kinds)))))


def _kinds(annotation: Any) -> Iterable[Any]:
    """The members of a union, which a plain annotation is of one."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _kinds(member)
    elif origin is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif origin is None or origin is Literal:
        yield annotation if isinstance(annotation, Hashable) else Any  # anything may stand in an annotation
    else:
        yield origin


def _takes(kind: Any, value: Any) -> bool:
    """Whether a value of a plain type is of a kind, or may be, as the kind is not known."""
    if get_origin(kind) is Literal:
        return any(value == each and isinstance(value, bool) is isinstance(each, bool) for each in get_args(kind))
    if kind in SIMPLE:
        return SIMPLE[kind](value)
    if kind in MAPPINGS:
        return isinstance(value, dict)
    if kind in LISTS:
        return isinstance(value, (list, tuple, kind))  # a text is a sequence, and a mapping a collection
    known = getattr(kind, "_is_protocol", False) and getattr(kind, "_is_runtime_protocol", False)
    return isinstance(value, kind) if known else True


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


SIMPLE: dict[Any, Callable[[Any], bool]] = {
    None: lambda value: value is None,
    type(None): lambda value: value is None,
    str: _is_text,
    Path: _is_text,
    bool: lambda value: isinstance(value, bool) or (_is_number(value) and value in (0, 1)),
    int: lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    float: _is_number,
}
"""What each of these kinds takes."""


def _words(kind: Any) -> str:
    return " or ".join(map(repr, get_args(kind))) if get_origin(kind) is Literal else WORDS.get(kind, "")
