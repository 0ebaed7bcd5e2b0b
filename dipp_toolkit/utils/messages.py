"""Names, values and numbers in sentences: how they are shown, shortened and spelt, and what a typo probably meant."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches

from ..errors import without_secrets

SHOWN = 200
"""Characters of a name or a value that a message shows."""

MINUS = "\N{MINUS SIGN}"
NEGATIVE = re.compile(r"(?:^|(?<=[\s(\[]))-(?=\.?\d)")
"""A hyphen that is a number's sign, as earlier versions and other people write it."""


def shown(name: object) -> str:
    """A name for a message: printable, and no longer than somebody reads."""
    text = without_secrets(str(name))[: SHOWN + 1]
    text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def quoted(value: object) -> str:
    """A value for a message, as Python writes it and no longer than somebody reads."""
    try:
        return shown(repr(value))
    except (ValueError, RecursionError):  # whole numbers of thousands of digits, and what holds them
        return f"a {type(value).__name__} that cannot be shown"


def is_broken(text: str) -> bool:
    """Whether a text has a lone surrogate (half of a UTF-16 pair), so that it cannot be encoded as UTF-8."""
    return not text.isascii() and any(0xD800 <= ord(letter) < 0xE000 for letter in text)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that is most like `name`, whatever their case, or None where none is close."""
    if len(name) > SHOWN:
        return None
    by_lower = {candidate.lower(): candidate for candidate in reversed(list(names))}
    close = get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None


def unknown_name(kind: str, name: str, names: Iterable[str]) -> str:
    """A sentence that says a name is unknown, suggests the nearest and lists those that exist."""
    names = sorted(names)
    guess = nearest(name, names)
    hint = f" Did you mean '{guess}'?" if guess else ""
    listing = f" Known: {', '.join(names)}." if names else f" No {kind} is installed."
    return f"There is no {kind} named '{shown(name)}'.{hint}{listing}"


def number_text(value: float, form: str = ".3g") -> str:
    """A number by a format of Python's, with a true minus sign; what rounds to 0 has no sign, and with `#`, which keeps
    zeros at the end, no number ends in a point."""
    text = format(value, form).removesuffix(".")
    if not text.strip("+-0., "):
        text = text.replace("-", "").replace("+", "")
    return text.replace("-", MINUS)


def short_name(name: str) -> str:
    """A registered name as it is; of a file, a folder or a hub id the last part. Several words are not such a name."""
    if any(letter.isspace() for letter in name):
        return name
    asked = re.fullmatch(r"[a-z][\w-]*:https?://.*[?&]model=([^&=]+).*", name)
    name = asked[1] if asked else name  # a model that is asked: what people call it
    return name.removeprefix("diffusers:").rstrip("/").split("/")[-1] or name


class Spelling:
    """The spelling of names on one page, or in one command's output.

    Args:
        names: all that occur, as they were given. A name is shortened to its last part (`./blue.py:blueness` to
            `blue.py:blueness`) unless another one has the same.
    """

    def __init__(self, names: Iterable[str]):
        given = list(dict.fromkeys(name for name in names if name))
        counts = Counter(map(short_name, given))
        self._short = {name: short_name(name) if counts[short_name(name)] == 1 else name for name in given}
        long = sorted((name for name, short in self._short.items() if short != name), key=len, reverse=True)
        # No part of a longer path is a name.
        self._long = re.compile(rf"(?<![\w./-])(?:{'|'.join(map(re.escape, long))})(?![\w/])") if long else None

    def name(self, name: str) -> str:
        """A name as it is spelt here; shortened where it was not among them."""
        return self._short.get(name) or short_name(name)

    def text(self, text: str) -> str:
        """A sentence with names as they are spelt here and true minus signs."""
        if self._long is not None:
            text = self._long.sub(lambda match: self._short[match.group()], text)
        return NEGATIVE.sub(MINUS, text)
