"""Texts that others will read: without the places, the user and the machine that they speak of."""

from __future__ import annotations

import getpass
import platform
import re
import tempfile
from pathlib import Path

from ...errors import without_secrets

PLACE = "a folder of this machine"
PATH = re.compile(
    r"""(?x)
    (?<![\w.:/\\-])(?:file://)?                # what stands before a path, not inside a word or an address
    (?: ~[\w.-]* (?=/|\\)                      # a home
      | [A-Za-z]:(?=[\\/])                     # a drive
      | \\(?=\\\w)                             # a share
      | \.{0,2} (?=/\w) )                      # the root, or where the program was started
    (?: [\\/]+ [^\s'"<>|,;:()\[\]{}\\/]+ )+ [\\/]?
    """
)
LONGEST = 600
"""Characters of a text in a row."""


def public(text: str) -> str:
    """A text for a row: paths, the user's and the machine's names and secrets of addresses are out of it.

    Args:
        text: a sentence of the toolkit, or of a library, that may name files.
    """
    text = without_secrets(text)
    for place in _places():
        text = text.replace(place, PLACE)
    text = PATH.sub(PLACE, text)
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    for name in _names():
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "...", text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def _places() -> list[str]:
    """Folders whose names say something of somebody, the longest first."""
    places = {str(Path.home()), str(Path.cwd()), tempfile.gettempdir()}
    return sorted((place for place in places if len(place) > 1), key=len, reverse=True)


def _names() -> list[str]:
    """The user's and the machine's names, where these are more than a word that others have too."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = ""
    plain = {"", "root", "user", "ubuntu", "runner", "localhost", "admin", "worker", "node"}
    return [name for name in (user, platform.node()) if name.lower() not in plain and len(name) > 2]


def has_path(text: str) -> bool:
    """Whether a text names a place on somebody's machine."""
    return PATH.search(text) is not None
