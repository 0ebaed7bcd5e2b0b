"""A hub cache that holds what this machine wrote into it, so that published names load by their own path, offline."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub.constants as hub

COMMIT = "0" * 40
"""The name of every repository's one snapshot."""


class HubCache:
    """A folder in the layout of the hub's cache.

    Args:
        home: what `HF_HOME` would be.
    """

    def __init__(self, home: Path) -> None:
        self.home = home

    def snapshot(self, repository: str) -> Path:
        """The folder of a repository's files, made where it is missing."""
        place = self.home / "hub" / f"models--{repository.replace('/', '--')}"
        folder = place / "snapshots" / COMMIT
        if not folder.is_dir():
            folder.mkdir(parents=True)
            (place / "refs").mkdir()
            (place / "refs" / "main").write_text(COMMIT, encoding="utf-8")
        return folder

    def add(self, repository: str, source: Path) -> Path:
        """Copy a folder's files into a repository; returns the snapshot."""
        return Path(shutil.copytree(source, self.snapshot(repository), dirs_exist_ok=True))

    @contextmanager
    def used(self) -> Iterator[None]:
        """Inside, the hub is this cache and cannot be reached, and what is converted is kept beside it."""
        before = {name: getattr(hub, name) for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE")}
        cache = os.environ.get("DIPP_CACHE")
        hub.HF_HUB_CACHE, hub.HF_HUB_OFFLINE = str(self.home / "hub"), True
        os.environ["DIPP_CACHE"] = str(self.home / "dipp")
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(hub, name, value)
            os.environ.pop("DIPP_CACHE")
            if cache is not None:
                os.environ["DIPP_CACHE"] = cache
