"""The checker behind every annotated function in the tests.

beartype looks at what a function is given and returns, an int accepted where a float is asked for. Around a function
whose annotations speak of arrays stands jaxtyping as well, which holds the names of their axes against each other; its
wrapper costs as much as a short function, so that the others go without. Functions inside functions are made anew in
each call of the one around them, and to wrap one takes longer than most of them: they are left as they are.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import partial
from typing import Any, get_args, get_type_hints
from unittest.mock import patch

from jaxtyping import AbstractArray, jaxtyped

with patch.object(random, "getrandbits", random.Random(0).getrandbits):
    # It draws which item of a list it looks at: from numbers of its own, not from those that a run keeps and restores.
    from beartype import BeartypeConf, beartype

# A TypeError is what a wrong argument would raise further in: code that answers for it answers for this one.
check = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeError))


def checked(function: Any = None, *, typechecker: Callable[..., Any] = check) -> Any:
    """`jaxtyping.jaxtyped`, which the import hook puts on everything, for the functions that speak of arrays alone."""
    if function is None:
        return partial(checked, typechecker=typechecker)
    if inspect.isclass(function):
        if is_dataclass(function) and inspect.isfunction(vars(function).get("__init__")):
            function.__init__ = checked(function.__init__, typechecker=typechecker)  # type: ignore[misc]
        return function
    if not inspect.isfunction(function):
        return jaxtyped(function, typechecker=typechecker)
    if "<locals>" in function.__qualname__:
        return function
    written = function.__annotations__
    hints = {name: _resolved(hint, function.__globals__) for name, hint in written.items()}
    if any(_of_arrays(hint) for hint in hints.values()):
        return jaxtyped(function, typechecker=typechecker)
    function.__annotations__ = hints
    try:
        wrapper = typechecker(function)
    finally:
        function.__annotations__ = written
    wrapper.__annotations__ = written
    return wrapper


def _resolved(hint: Any, names: dict[str, Any]) -> Any:
    """What an annotation means; Any where a name of it is imported for type checkers alone, as jaxtyping has it."""

    def holder(value: Any) -> None: ...

    holder.__annotations__ = {"value": hint}
    try:
        return get_type_hints(holder, names, include_extras=True)["value"]
    except (NameError, AttributeError, TypeError, ValueError, SyntaxError):
        return Any


def _of_arrays(hint: Any) -> bool:
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    parts = hint if isinstance(hint, list) else get_args(hint)
    return any(_of_arrays(part) for part in parts)
