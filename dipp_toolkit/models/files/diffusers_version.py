"""Pipeline classes that an older diffusers lacks: a sentence with the version that has one."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.version import Version

from ...errors import RequestError
from ..family import Since


def check_diffusers(name: str, family: Any, folder: Path | None = None) -> None:
    """Refuse a pipeline class that came with a later diffusers than the installed one.

    Nothing is imported: the number of the installed version decides. A development version counts as the one that it
    becomes.

    Args:
        name: of the class.
        family: its family; one that does not say `since` is never refused.
        folder: of the pipeline, for the message.

    Raises:
        RequestError: with both versions, and what to type.
    """
    if not isinstance(family, Since):
        return
    installed = version("diffusers")
    if Version(Version(installed).base_version) < Version(family.since):
        which = f", which {folder} is" if folder is not None else ""
        raise RequestError(
            f"The installed diffusers {installed} has no {name}{which}. It came with diffusers {family.since}. Run: "
            f"pip install --upgrade 'diffusers>={family.since}'"
        )
