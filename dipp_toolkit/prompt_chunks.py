"""The files of a prompt cache: each a few hundred prompts with their embeddings, row by row, in safetensors' format."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from .errors import RequestError

ENDING = ".safetensors"
PARTIAL = ".partial"
ABANDONED = 3600
"""Seconds after which a chunk that nobody finished writing is removed."""


def damaged(path: Path) -> RequestError:
    """What is said of a chunk that cannot be used."""
    return RequestError(f"The prompt cache file {path} is damaged. Delete it; its prompts are encoded again.")


def open_chunk(path: Path) -> tuple[list[str], dict[str, Any]]:
    """The prompts of a chunk, row by row, and its tensors, mapped from the file and read row by row.

    Raises:
        RequestError: it is no such file, or is damaged.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("no file")
        file = safe_open(path, "pt")
        prompts = json.loads(file.metadata()["prompts"])
        tensors = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        lengths = {one.get_shape()[0] for one in tensors.values()}
        if not isinstance(prompts, list) or {len(prompts)} != lengths or {type(one) for one in prompts} != {str}:
            raise ValueError("no chunk")
    except Exception as error:  # safetensors raises an error of its own
        raise damaged(path) from error
    return prompts, tensors


def read_row(path: Path, tensors: Mapping[str, Any], row: int) -> dict[str, torch.Tensor]:
    """One prompt's tensors.

    Raises:
        RequestError: the chunk is damaged.
    """
    try:
        return {key: one[row] for key, one in tensors.items()}
    except Exception as error:  # safetensors raises an error of its own
        raise damaged(path) from error


def remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed left of chunks that they were writing."""
    for path in folder.glob(f".*{PARTIAL}"):
        with suppress(OSError):  # another process was faster
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
