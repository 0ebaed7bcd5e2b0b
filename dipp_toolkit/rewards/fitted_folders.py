"""Folders that hold a reward: fitted to votes, and named by their path wherever a reward's name is."""

from __future__ import annotations

from pathlib import Path

from ..errors import RequestError
from ..registry import get_registry
from ..utils.imports import is_python_name
from ..utils.messages import shown
from ..utils.paths import looks_like_path, user_path

FIT = "fit.json"
"""What tells the folder of a fitted reward from any other."""
FITTED = "fitted"
"""The registered reward that loads one."""


def fitted_folder(name: str) -> Path | None:
    """The folder of a fitted reward that a name means; None where it is another kind of name.

    Args:
        name: of a reward on this machine. A registered one is that reward, whatever lies in the working folder.

    Raises:
        RequestError: it is written as a path, and no fitted reward is there.
    """
    if name in get_registry().entries["reward"] or is_python_name(name) or not looks_like_path(name):
        return None
    path = user_path(name)
    if (path / FIT).is_file():
        return path
    where = f"the folder has no {FIT}" if path.is_dir() else f"nothing is there (looked in {path.parent.resolve()})"
    raise RequestError(
        f"There is no reward named '{shown(name)}': {where}. A folder is one where dipp reward fit wrote it, and a "
        "function of yours is named with its file, as in ./mine.py:blue."
    )
