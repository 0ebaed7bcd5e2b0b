"""Terms by name: registered ones, and a user's Python file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from ..errors import PluginError
from ..python_files import check_call, is_python_name, load_python_name
from ..registry import get_registry
from .base import Term, TermContext


def find_term(name: str) -> Callable[[TermContext], Term]:
    """The factory of a term, by registered name, `file.py:attribute` or `module:attribute`.

    A class with a `build(context)` classmethod is built with that.

    Raises:
        RequestError: there is no such term; the message names the nearest.
    """
    registered = get_registry().entries["term"]
    if name in registered:
        return cast("Callable[[TermContext], Term]", registered[name].build)
    if is_python_name(name):
        found: Any = load_python_name(name, "term")
        factory = getattr(found, "build", found)
        check_call(factory, ("context",), f"term '{name}'")
        return cast("Callable[[TermContext], Term]", factory)
    raise get_registry().unknown(name, "term")


def build_term(name: str, context: TermContext) -> Term:
    """Build the term of this name; see `find_term`.

    Raises:
        PluginError: what the factory made cannot be called with a sample.
    """
    term = find_term(name)(replace(context, name=name, options=context.config.term_options.get(name, {})))
    if not callable(term):
        raise PluginError(
            f"The term '{name}' made {term!r}; expected something to call with a sample, which returns a TermResult."
        )
    return term
