"""Folders that hold a reward: fitted to votes, and named by their path wherever a reward's name is."""

from __future__ import annotations

from ..utils.paths import is_there, user_path

FIT = "fit.json"
"""What tells the folder of a fitted reward from any other."""
FITTED = "fitted"
"""The registered reward that loads one."""


def is_fitted_folder(name: str) -> bool:
    """Whether a name is the path of a folder that holds a fitted reward."""
    return is_there(name) and (user_path(name) / FIT).is_file()
