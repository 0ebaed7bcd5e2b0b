"""How names and numbers are written where people read them: one spelling of a name, one minus sign."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

MINUS = "\N{MINUS SIGN}"
NEGATIVE = re.compile(r"(?:^|(?<=[\s(\[]))-(?=\.?\d)")
"""A hyphen that is a number's sign, as in sentences of earlier versions and of strangers."""


def number_text(value: float, form: str = ".3g") -> str:
    """A number by a format of Python's, with a true minus sign; what rounds to 0 has no sign, and with `#`, which keeps
    zeros at the end, no number ends in a point."""
    text = format(value, form).removesuffix(".")
    if not text.strip("+-0., "):
        text = text.replace("-", "").replace("+", "")
    return text.replace("-", MINUS)


def short_name(name: str) -> str:
    """A registered name as it is; of a file, a folder or a hub id the last part. Several words are no such name."""
    if any(letter.isspace() for letter in name):
        return name
    return name.removeprefix("diffusers:").rstrip("/").split("/")[-1] or name


class Spelling:
    """The spelling of names on one page, or in one command's answer.

    Args:
        names: all that are spoken of, as they were given. A name is shortened to its last part (`./blue.py:blueness` to
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
        """A name as it is spelt here; the short one of a name that was not announced."""
        return self._short.get(name) or short_name(name)

    def text(self, text: str) -> str:
        """A sentence with names as they are spelt here and true minus signs."""
        if self._long is not None:
            text = self._long.sub(lambda found: self._short[found.group()], text)
        return NEGATIVE.sub(MINUS, text)
