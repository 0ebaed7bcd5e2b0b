"""Sentences about names that are not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None where none is close."""
    close = get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return close[0] if close else None


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """A sentence that says a name is unknown, suggests the nearest and lists what there is."""
    names = sorted(known)
    guess = nearest(name, names)
    hint = f" Did you mean '{guess}'?" if guess else ""
    listing = f" Known: {', '.join(names)}." if names else f" No {kind} is installed."
    return f"There is no {kind} named '{name}'.{hint}{listing}"
