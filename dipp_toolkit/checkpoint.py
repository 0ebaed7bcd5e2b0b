"""Checkpoints: nested states as safetensors and JSON, written atomically, with a checksum a reader verifies.

A checkpoint is a folder of two files. `state.safetensors` holds every tensor under its path
(`"assistant/optimizer/state/3/exp_avg"`); `state.json` holds the skeleton around them (numbers, strings, lists,
dictionaries), the checksums of both parts, and a format version. The folder is written beside its final place,
flushed to the disk and renamed, so a reader finds a whole checkpoint or none. No pickle is involved in either
direction.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .errors import CheckpointError

FORMAT = 1
TENSORS, SKELETON = "state.safetensors", "state.json"
_TENSOR, _TUPLE, _INT_KEYS = "__tensor__", "__tuple__", "__int_keys__"


def _flatten(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: path}
    if isinstance(value, dict):
        children = {str(key): _flatten(child, f"{path}/{key}", tensors) for key, child in value.items()}
        return {_INT_KEYS: children} if value and all(isinstance(key, int) for key in value) else children
    if isinstance(value, (list, tuple)):
        children_list = [_flatten(child, f"{path}/{index}", tensors) for index, child in enumerate(value)]
        return {_TUPLE: children_list} if isinstance(value, tuple) else children_list
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"A checkpoint holds tensors, numbers, strings, lists and dictionaries; {path} is a {type(value).__name__}."
    )


def _restore(skeleton: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(skeleton, list):
        return [_restore(child, tensors) for child in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    if set(skeleton) == {_TENSOR}:
        return tensors[skeleton[_TENSOR]]
    if set(skeleton) == {_TUPLE}:
        return tuple(_restore(child, tensors) for child in skeleton[_TUPLE])
    if set(skeleton) == {_INT_KEYS}:
        return {int(key): _restore(child, tensors) for key, child in skeleton[_INT_KEYS].items()}
    return {key: _restore(child, tensors) for key, child in skeleton.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` as the checkpoint `folder`, atomically; an older checkpoint of that name is replaced.

    Args:
        folder: the checkpoint's final place; its parent is created where missing.
        state: nested dictionaries, lists and tuples of tensors, numbers, strings, booleans and None.

    Raises:
        TypeError: the state holds something else.
        OSError: the disk is full or the folder cannot be written; the older checkpoint is then untouched.
    """
    tensors: dict[str, torch.Tensor] = {}
    skeleton = _flatten(state, "", tensors)
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    save_file(tensors, beside / TENSORS)
    document = {
        "format": FORMAT,
        "sha256": {"tensors": _sha256(beside / TENSORS), "skeleton": _sha256_of_json(skeleton)},
        "state": skeleton,
    }
    (beside / SKELETON).write_text(json.dumps(document), encoding="utf-8")
    for name in (TENSORS, SKELETON):
        _fsync(beside / name)
    _fsync(beside)
    if folder.exists():
        older = folder.with_name(f".{folder.name}.older")
        shutil.rmtree(older, ignore_errors=True)
        folder.rename(older)
        beside.rename(folder)
        shutil.rmtree(older)
    else:
        beside.rename(folder)
    _fsync(folder.parent)


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Read the checkpoint `folder`, after verifying its checksum.

    Raises:
        CheckpointError: the folder is missing, is no checkpoint of ours, or is damaged.
    """
    try:
        document = json.loads((folder / SKELETON).read_text(encoding="utf-8"))
        version, expected, skeleton = document["format"], document["sha256"], document["state"]
        if version == FORMAT:
            found = {"tensors": _sha256(folder / TENSORS), "skeleton": _sha256_of_json(skeleton)}
    except OSError as error:
        missing = Path(error.filename or folder).name
        raise CheckpointError(f"{folder} is not a checkpoint: {missing} is missing or cannot be read.") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"The checkpoint {folder} is damaged: {SKELETON} cannot be read.") from None
    if version != FORMAT:
        raise CheckpointError(f"The checkpoint {folder} has format {version}; this version reads format {FORMAT}.")
    for part, name in (("tensors", TENSORS), ("skeleton", SKELETON)):
        if found[part] != expected.get(part):
            raise CheckpointError(f"The checkpoint {folder} is damaged: the checksum of {name} does not match.")
    return _restore(skeleton, load_file(folder / TENSORS))


def checkpoint_step(folder: Path) -> int | None:
    """The step a checkpoint folder is named after (`step-00000120` is 120), or None for any other name."""
    match = re.fullmatch(r"step-(\d+)", folder.name)
    return int(match.group(1)) if match else None


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints inside `folder`, oldest first, whole or damaged."""
    if not folder.is_dir():
        return []
    return sorted(
        (one for one in folder.iterdir() if checkpoint_step(one) is not None), key=lambda one: checkpoint_step(one) or 0
    )


def newest_whole_checkpoint(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The state of the newest checkpoint inside `folder` that verifies, and what was wrong with newer ones.

    Returns:
        The state (None where there is no whole checkpoint) and a sentence for each damaged checkpoint passed over.
    """
    problems: list[str] = []
    for one in reversed(checkpoints(folder)):
        try:
            return load_checkpoint(one), problems
        except CheckpointError as error:
            problems.append(str(error))
    return None, problems
