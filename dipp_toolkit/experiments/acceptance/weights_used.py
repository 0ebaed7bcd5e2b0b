"""The weight files that a name is made of: where each is from, at which revision, and its SHA-256."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...models.files.download_lists import INDEX, NOT_NEEDED
from ...models.files.fetching import hub_id_of
from ...models.files.weight_files import PICKLE, weights_in
from ...rewards.loading import files_of
from ...utils.content_digests import file_digest
from ...utils.json_files import read_json

COMMIT = re.compile(r"[0-9a-f]{40}")
WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""Endings of a reward's files that hold weights, and not words or settings."""
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class WeightFile:
    """A file of weights.

    Attributes:
        role: what it belongs to: `generator`, `reference`, or `reward NAME`.
        source: the hub's repository; `a folder`, or `its plugin`.
        revision: the commit of the hub's snapshot; empty where there is none.
        file: its path inside the source.
        sha256: of its bytes.
        bytes: how many.
        hub_sha256: its SHA-256 according to the hub; empty where unknown.
    """

    role: str
    source: str
    revision: str
    file: str
    sha256: str
    bytes: int
    hub_sha256: str = ""

    @property
    def intact(self) -> bool:
        """Whether it is the file that the hub means, as far as anybody says."""
        return self.hub_sha256 in ("", self.sha256)


def weight_file(path: Path, role: str, root: Path, source: str = "") -> WeightFile:
    """Look at a file, all of it.

    Args:
        path: of it.
        role: what it belongs to.
        root: the folder that its name is given in.
        source: what it comes from, where that is no repository of the hub.

    Raises:
        OSError: it cannot be read.
    """
    hub = hub_id_of(path)
    inside = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    blob = path.resolve()  # the hub's cache keeps a large file under its SHA-256
    hub_sha256 = blob.name if blob.parent.name == "blobs" and SHA256.fullmatch(blob.name) else ""
    return WeightFile(
        role, hub or source or "a folder", revision_of(path), inside, file_digest(path), path.stat().st_size, hub_sha256
    )


def revision_of(path: Path) -> str:
    """The commit of the hub's snapshot that a path of its cache belongs to; empty for another path."""
    parts = path.parts
    after = parts[parts.index("snapshots") + 1 :] if "snapshots" in parts else ()
    return after[0] if after and COMMIT.fullmatch(after[0]) else ""


def component_files(folder: Path, without: str = "") -> Iterator[Path]:
    """The files that a pipeline's weights are read from.

    Args:
        folder: the pipeline's.
        without: a component whose weights come from elsewhere.

    Raises:
        RequestError: its index cannot be read.
    """
    for name, entry in read_json(folder / INDEX).items():
        if isinstance(entry, list) and len(entry) == 2 and entry[0] and name not in (*NOT_NEEDED, without):
            yield from files_in(folder / name)


def files_in(place: Path) -> Iterator[Path]:
    """The files that one network's weights are read from; none where it has none."""
    weights = weights_in(place) or weights_in(place, PICKLE)
    yield from (place / name for name in (() if weights is None else weights.files))


def reward_files(role: str, make: Any, options: Mapping[str, Any]) -> list[WeightFile] | None:
    """A reward's weight files, fetched where they are not here.

    Args:
        role: what they belong to.
        make: what makes the reward, as `find_reward` gives it.
        options: of the reward.

    Returns:
        None where its plugin says nothing of files.

    Raises:
        RequestError: one is not there.
    """
    files = files_of(make, options)
    if files is None:
        return None
    paths: dict[Path, None] = {}
    for path in files:  # of some it is the configuration, and the weights lie beside it
        paths |= dict.fromkeys([path] if path.suffix in WEIGHTS else files_in(path.parent))
    return [weight_file(path, role, snapshot_of(path), "its plugin") for path in paths] or None


def snapshot_of(path: Path) -> Path:
    """The snapshot that a file of the hub's cache lies in; the folder of any other file."""
    parts = path.parts
    return Path(*parts[: parts.index("snapshots") + 2]) if "snapshots" in parts else path.parent
