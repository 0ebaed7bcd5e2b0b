"""Paths of before the rooms: they still import for one release, with a DeprecationWarning that names the new place.

A finder on `sys.meta_path` serves modules that are gone, and gives those that stayed the names that left them, so that
no file is kept for an old path's sake.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "dipp_toolkit"
TABLE = Path(__file__).with_name("moved.json")
"""`modules`: where the names of an old module are now, searched in order; `names`: those that have another name now."""


@cache
def _table() -> Mapping[str, Any]:
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def _moved() -> Mapping[str, Sequence[str]]:
    modules: Mapping[str, Sequence[str]] = _table()["modules"]
    return modules


def install() -> None:
    """Serve old paths from now on."""
    if not any(isinstance(finder, OldPaths) for finder in sys.meta_path):
        sys.meta_path.insert(0, OldPaths())


class OldPaths(MetaPathFinder):
    """Finds the modules of `moved.json`."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != PACKAGE or name not in _moved():
            return None
        others = [finder for finder in sys.meta_path if not isinstance(finder, OldPaths)]
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:  # the module stays, some of its names have left
            spec.loader = _Stayed(spec.loader, name)
            return spec
        spec = ModuleSpec(fullname, _Gone(name))
        if any(other.startswith(f"{name}.") for other in _moved()):
            spec.submodule_search_locations = []
        return spec


class _Gone(Loader):
    def __init__(self, name: str):
        self.name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return _Called(spec.name) if self.name in sys.modules[PACKAGE].__dict__["_LAZY"] else None

    def exec_module(self, module: ModuleType) -> None:
        places = " and ".join(f"{PACKAGE}.{place}" for place in _moved()[self.name])
        warnings.warn(
            f"{PACKAGE}.{self.name} has moved to {places}; the old path works until the next release.",
            DeprecationWarning,
            stacklevel=2,
        )
        module.__getattr__ = _names_of(self.name, None)  # type: ignore[method-assign]


class _Called(ModuleType):
    """A module that is gone, under the name of what is a public function today. Its import puts it in the function's
    place on the package, where it is called like the function."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        package, _, name = self.__name__.rpartition(".")
        return sys.modules[package].__getattr__(name)(*arguments, **keywords)


class _Stayed(Loader):
    """Loads a module and lets it answer for names that have left it."""

    def __init__(self, loader: Any, name: str):
        self.loader = loader
        self.name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self.loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        module.__getattr__ = _names_of(self.name, getattr(module, "__getattr__", None))  # type: ignore[method-assign]

    def __getattr__(self, attribute: str) -> Any:  # what else an import system asks of a loader: sources, resources
        return getattr(self.loader, attribute)


def _names_of(module: str, own: Callable[[str], Any] | None) -> Callable[[str], Any]:
    def find(name: str) -> Any:
        if own is not None:
            with suppress(AttributeError):  # not one of the module's own lazy names
                return own(name)
        renamed = _table()["names"].get(f"{module}:{name}")
        places = [renamed.split(":")] if renamed else [[place, name] for place in _moved()[module]]
        for place, attribute in places if not name.startswith("__") else ():
            value = import_module(f"{PACKAGE}.{place}").__dict__.get(attribute)
            if value is not None:
                warnings.warn(
                    f"{PACKAGE}.{module}.{name} has moved to {PACKAGE}.{place}.{attribute}; the old path works until "
                    "the next release.",
                    DeprecationWarning,
                    stacklevel=2,
                )
                return value
        raise AttributeError(f"module '{PACKAGE}.{module}' has no attribute '{name}'")

    return find
