"""Names and values in sentences: what is not known, what was meant, and how much of either is shown."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from ..errors import without_secrets

SHOWN = 200
"""Characters of a name or a value that a message shows."""


def shown(name: object) -> str:
    """A name for a message: printable, and no longer than somebody reads."""
    text = without_secrets(str(name))[: SHOWN + 1]
    text = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def quoted(value: object) -> str:
    """A value for a message, as Python writes it and no longer than somebody reads."""
    try:
        return shown(repr(value))
    except (ValueError, RecursionError):  # whole numbers of thousands of digits, and what holds them
        return f"a {type(value).__name__} that cannot be shown"


def is_broken(text: str) -> bool:
    """Whether a text holds half of a character, a lone surrogate: it can be in no file then, and in no message."""
    return not text.isascii() and any(0xD800 <= ord(one) < 0xE000 for one in text)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, whatever their case, or None where none is close."""
    if len(name) > SHOWN:
        return None
    by_lower = {one.lower(): one for one in reversed(list(known))}
    close = get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """A sentence that says a name is unknown, suggests the nearest and lists what there is."""
    names = sorted(known)
    guess = nearest(name, names)
    hint = f" Did you mean '{guess}'?" if guess else ""
    listing = f" Known: {', '.join(names)}." if names else f" No {kind} is installed."
    return f"There is no {kind} named '{shown(name)}'.{hint}{listing}"
