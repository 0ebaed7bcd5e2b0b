"""The checks there are, in the order of the table."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from . import checks

if TYPE_CHECKING:
    from .outcome import Outcome


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
