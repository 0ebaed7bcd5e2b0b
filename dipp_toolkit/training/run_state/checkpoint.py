"""Checkpoints: nested states as safetensors and JSON, written atomically, with checksums a reader verifies.

A checkpoint is a folder. `state.safetensors` holds every tensor under its path, such as
`"assistant/optimizer/state/3/exp_avg_sq"`; of a sharded run each process also writes its part of the sharded ones,
`state-00001-of-00008.safetensors`. `state.json` holds the skeleton around them (numbers, strings, lists, dictionaries),
the checksums of all files, and a format version. The folder is written beside its final place, flushed to the disk and
renamed, so a reader finds a whole checkpoint or none. No pickle is involved in either direction.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...distributed import Processes
from ...distributed.group import PATIENCE
from ...distributed.sharded_state import flatten, restore
from ...errors import CheckpointError
from ...utils.atomic import beside_of, fsync, naming, put_in_place
from ...utils.paths import remove_below
from .host_copies import HostCopies

FORMAT = 2
READ = (FORMAT,)
"""Formats that this version reads."""
TENSORS, SKELETON = "state.safetensors", "state.json"
POLL = 0.05
"""Seconds between checks for what other processes have written."""


def shard_name(rank: int, count: int) -> str:
    """The file of one process's part."""
    return f"state-{rank:05d}-of-{count:05d}.safetensors"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _save(tensors: Mapping[str, Tensor], path: Path) -> str:
    """Write tensors so that they are on the disk; returns the file's checksum."""
    save_file(dict(tensors), path)
    digest = _sha256(path)
    fsync(path)
    return digest


def prepare(folder: Path) -> None:
    """Make the place where a checkpoint is put together, empty.

    Raises:
        OSError: it cannot be made.
    """
    beside = beside_of(folder)
    with naming(folder, beside):
        remove_below(beside, folder.parent)
        beside.mkdir(parents=True)


@dataclass(frozen=True)
class Snapshot:
    """A state at one moment, copied into the host's memory.

    Attributes:
        skeleton: plain values, and where the tensors stand.
        tensors: whole ones, the same in every process.
        shards: this process's parts of sharded ones.
        processes: those that write together.
        copies: made the copies, or is making them.
    """

    skeleton: Any
    tensors: Mapping[str, Tensor]
    shards: Mapping[str, Tensor]
    processes: Processes
    copies: HostCopies

    @classmethod
    def of(
        cls, state: dict[str, Any], processes: Processes | None = None, copies: HostCopies | None = None
    ) -> Snapshot:
        """Copy a state.

        Args:
            state: nested dictionaries, lists and tuples of tensors, numbers, strings, booleans and None.
            processes: those that each hold a part of it.
            copies: makes the copies; while it does, `copies.before_change` has to be called before the state changes.

        Raises:
            TypeError: it holds something else than tensors, numbers, strings, lists and dictionaries.
        """
        tensors: dict[str, Tensor] = {}
        shards: dict[str, Tensor] = {}
        copies = copies or HostCopies()
        copies.begin()
        skeleton = flatten(state, "", tensors, shards, copies)
        copies.end()
        return cls(skeleton, tensors, shards, processes or Processes(), copies)

    @property
    def mine(self) -> bool:
        """Whether this process has anything to write."""
        return self.processes.main or bool(self.shards)

    def write(self, folder: Path) -> None:
        """Write this process's part into the prepared place; the first process ends with the rename.

        Raises:
            OSError: the disk is full, the folder cannot be written, or another process's part did not come; an older
                checkpoint of that name is then untouched.
        """
        self.copies.wait()
        with naming(folder, beside_of(folder)):
            self._write(folder)

    def _write(self, folder: Path) -> None:
        beside, digests = beside_of(folder), {}
        if self.shards:
            name = shard_name(self.processes.rank, self.processes.count)
            digests[name] = _save(self.shards, beside / name)
            _note(beside / f"{name}.sha256", digests[name])
        if not self.processes.main:
            return
        digests[TENSORS] = _save(self.tensors, beside / TENSORS)
        if self.shards:
            for rank in range(self.processes.count):
                name = shard_name(rank, self.processes.count)
                digests[name] = _awaited(beside / f"{name}.sha256")
        document = {
            "format": FORMAT,
            "sha256": {"files": digests, "skeleton": _sha256_of_json(self.skeleton)},
            "state": self.skeleton,
        }
        (beside / SKELETON).write_text(json.dumps(document), encoding="utf-8")
        fsync(beside / SKELETON)
        for path in beside.glob("*.sha256"):
            path.unlink()
        fsync(beside)
        put_in_place(beside, folder)


def _note(path: Path, text: str) -> None:
    """A small file that another process finds whole or not at all."""
    beside = path.with_suffix(".writing")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _awaited(path: Path) -> str:
    until = time.monotonic() + PATIENCE.total_seconds()
    while not path.is_file():
        if time.monotonic() > until:
            raise OSError(f"{path.name} is missing: another process has not written its part of the checkpoint")
        time.sleep(POLL)
    return path.read_text(encoding="utf-8")


def save_checkpoint(folder: Path, state: dict[str, Any], processes: Processes | None = None) -> None:
    """Write `state` as the checkpoint `folder`, atomically; an older checkpoint of that name is replaced.

    Args:
        folder: the checkpoint's final place; its parent is created where missing.
        state: nested dictionaries, lists and tuples of tensors, numbers, strings, booleans and None.
        processes: those that each hold a part of it.

    Raises:
        TypeError: the state holds something else.
        OSError: the disk is full or the folder cannot be written; the older checkpoint is then untouched.
    """
    snapshot = Snapshot.of(state, processes)
    if snapshot.processes.main:
        prepare(folder)
    snapshot.processes.wait()
    if snapshot.mine:
        snapshot.write(folder)
    snapshot.processes.wait()


def load_checkpoint(folder: Path, verify: bool = True) -> dict[str, Any]:
    """Read the checkpoint `folder`.

    Args:
        folder: the checkpoint.
        verify: hold every file against its checksum first.

    Returns:
        The state. Tensors that were sharded are `nested_state.Pieces`; `nested_state.placed` puts them where they go.

    Raises:
        CheckpointError: the folder is missing, is not a checkpoint, or is damaged.
    """
    try:
        document = json.loads((folder / SKELETON).read_text(encoding="utf-8"))
        version, expected, skeleton = document["format"], document["sha256"], document["state"]
        if version in READ:
            files = dict(expected["files"])
            for name in files:
                if Path(name).name != name:
                    raise ValueError(name)
            digests = {name: _sha256(folder / name) if verify else digest for name, digest in files.items()}
            whole = _sha256_of_json(skeleton) == expected["skeleton"]
    except OSError as error:
        missing = Path(error.filename or folder).name
        raise CheckpointError(f"{folder} is not a checkpoint: {missing} is missing or cannot be read.") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"The checkpoint {folder} is damaged: {SKELETON} cannot be read.") from None
    if version not in READ:
        raise CheckpointError(f"The checkpoint {folder} has format {version}; this version reads format {FORMAT}.")
    for name, digest in files.items():
        if digests[name] != digest:
            raise CheckpointError(f"The checkpoint {folder} is damaged: the checksum of {name} does not match.")
    if not whole:
        raise CheckpointError(f"The checkpoint {folder} is damaged: the checksum of {SKELETON} does not match.")
    try:
        shards = [safe_open(folder / name, "pt") for name in sorted(files) if name != TENSORS]
        restored: dict[str, Any] = restore(skeleton, load_file(folder / TENSORS), shards)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"The checkpoint {folder} is damaged: its tensors cannot be read.") from error
    return restored


def checkpoint_step(folder: Path) -> int | None:
    """The step a checkpoint folder is named after (`step-00000120` is 120), or None for any other name."""
    match = re.fullmatch(r"step-(\d+)", folder.name)
    return int(match.group(1)) if match else None


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints inside `folder`, oldest first, whole or damaged."""
    if not folder.is_dir():
        return []
    steps = {path: step for path in folder.iterdir() if (step := checkpoint_step(path)) is not None}
    return sorted(steps, key=lambda path: steps[path])


def newest_whole_checkpoint(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The state of the newest checkpoint inside `folder` that verifies, and what was wrong with newer ones.

    Returns:
        The state (None where there is no whole checkpoint) and a sentence for each damaged checkpoint passed over.
    """
    problems: list[str] = []
    for path in reversed(checkpoints(folder)):
        try:
            return load_checkpoint(path), problems
        except CheckpointError as error:
            problems.append(str(error))
    return None, problems
