"""The networks inside a reward, wherever its author keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from types import ModuleType
from typing import Any

from torch import nn

DEPTH = 4
MOST = 100
"""How deep, and at how many entries of a list or mapping, one looks."""


def modules_of(reward: Any) -> list[nn.Module]:
    """The outermost torch modules that a reward holds: in attributes, in closures, in the globals its function names.

    Args:
        reward: a reward, a function, or a module itself.
    """
    modules: dict[int, nn.Module] = {}
    visited: set[int] = set()

    def collect(thing: Any, depth: int) -> None:
        if id(thing) in visited or depth > DEPTH or isinstance(thing, ModuleType):
            return
        visited.add(id(thing))
        if isinstance(thing, nn.Module):
            modules[id(thing)] = thing
            return
        for child in _children(thing):
            collect(child, depth + 1)

    collect(reward, 0)
    inner = {id(part) for module in modules.values() for part in module.modules() if part is not module}
    return [module for key, module in modules.items() if key not in inner]


def _children(thing: Any) -> Iterator[Any]:
    if isinstance(thing, Mapping):
        yield from islice(thing.values(), MOST)
    elif isinstance(thing, Sequence) and not isinstance(thing, (str, bytes)):
        yield from islice(thing, MOST)  # a deque, as a worker's last words are kept in, takes no slices
    code = getattr(thing, "__code__", None)
    if code is not None:
        named = getattr(thing, "__globals__", {})
        yield from (named[name] for name in code.co_names if isinstance(named.get(name), nn.Module))
        yield from (cell.cell_contents for cell in getattr(thing, "__closure__", None) or () if _filled(cell))
    elif not isinstance(thing, type):
        yield from (getattr(thing, "__dict__", None) or {}).values()
    yield getattr(thing, "__self__", None)  # of a method


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a closure that is not filled yet
        return False
