"""Modules that moved: what was public under the paths of before is served there for a release, with a warning."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import dipp_toolkit


def names_in(file: str) -> dict[str, list[str]]:
    """Names by module."""
    lines = Path(__file__).with_name(file).read_text(encoding="utf-8").splitlines()
    return {module: names for module, *names in map(str.split, lines)}


GONE = {f"{module}:{name}" for module, names in names_in("old_paths_gone.txt").items() for name in names}
"""Constants and helpers that no other module has in their place."""
PUBLIC = names_in("old_paths.txt")
"""The public names that each module defined before any of them moved, but for those of code that a library replaced."""
REPLACED = {
    "prompt_chunks": "one SQLite file a text encoder",
    "scratch": "datasets",
    "text_lines": "io.TextIOWrapper",
}
"""Modules that are gone, and what does their work."""


def reason_missing(module: str, name: str) -> str:
    """Why a public name of before is not served; empty where it is."""
    try:
        getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def test_every_public_name_is_served_under_its_path_of_before() -> None:
    reasons = {f"{module}:{name}": reason_missing(module, name) for module, names in PUBLIC.items() for name in names}
    assert {name: reason for name, reason in reasons.items() if reason and name not in GONE} == {}


def test_what_is_served_is_the_thing_itself() -> None:
    """A class that a plugin takes from the old path is the one that the toolkit knows."""
    for module, names in PUBLIC.items():
        for name in names:
            if f"{module}:{name}" in GONE:
                continue
            value: Any = getattr(import_module(module), name)
            home = getattr(value, "__module__", None) or ""
            if isinstance(value, type) and home.startswith("dipp_toolkit."):
                assert getattr(sys.modules[home], value.__qualname__) is value, f"{module}:{name}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("roles", "protocols"),
        ("condition", "diffusion.condition"),
        ("terms.base", "objective.base"),
        ("diffusers_reference", "models.reference"),
        ("gaussians.law", "objective.gaussians"),
    ],
)
def test_an_old_path_says_the_new_one(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"dipp_toolkit.{old}", raising=False)
    with pytest.warns(DeprecationWarning, match=rf"dipp_toolkit\.{old}.*dipp_toolkit\.{new}"):
        import_module(f"dipp_toolkit.{old}")


def test_public_functions_are_called_as_before_once_a_path_of_their_name_was_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = [name for name in dipp_toolkit.__all__ if find_spec(f"dipp_toolkit.{name}") is not None]
    assert "bench" in shared
    for name in shared:
        import_module(f"dipp_toolkit.{name}")
        home = dipp_toolkit._LAZY.get(name, f"{name}.call")
        monkeypatch.setattr(f"dipp_toolkit.{home}.{name}", lambda *given, **named: (given, named))
        assert getattr(dipp_toolkit, name)("a", b="c") == (("a",), {"b": "c"})


@pytest.mark.parametrize("name", ["rolls", *REPLACED])
def test_a_path_that_never_was_or_was_replaced_is_no_module(name: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=rf"dipp_toolkit\.{name}"):
        import_module(f"dipp_toolkit.{name}")
