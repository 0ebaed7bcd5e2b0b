"""The files of a prompt cache: each a few hundred prompts with their embeddings, row by row, in safetensors' format."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
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


def version_of(path: Path) -> tuple[int, int, int]:
    """What differs once a file was exchanged or written to."""
    about = path.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns


@dataclass(frozen=True)
class OpenChunk:
    """A chunk whose tensors are mapped from its file.

    Attributes:
        path: the file.
        version: of the file.
        prompts: row by row.
        tensors: by name; a row is read when it is asked for.
    """

    path: Path
    version: tuple[int, int, int]
    prompts: list[str]
    tensors: Mapping[str, Any]

    def row(self, index: int) -> dict[str, torch.Tensor]:
        """One prompt's tensors.

        Raises:
            RequestError: the chunk is damaged.
        """
        try:
            return {key: one[index] for key, one in self.tensors.items()}
        except Exception as error:  # safetensors raises an error of its own
            raise damaged(self.path) from error


def open_chunk(path: Path) -> OpenChunk:
    """Open a chunk.

    Raises:
        RequestError: it is no such file, or is damaged.
    """
    try:
        version = version_of(path)
        if not path.is_file():
            raise ValueError("no file")
        file = safe_open(path, "pt")
        prompts = json.loads(file.metadata()["prompts"])
        tensors = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        lengths = {one.get_shape()[0] for one in tensors.values()}
        if not isinstance(prompts, list) or {len(prompts)} != lengths or {type(one) for one in prompts} != {str}:
            raise ValueError("no chunk")
    except Exception as error:  # safetensors raises an error of its own
        raise damaged(path) from error
    return OpenChunk(path, version, prompts, tensors)


def remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed left of chunks that they were writing."""
    with suppress(OSError):  # the folder cannot be written
        for path in (*folder.glob(f".*{PARTIAL}"), *folder.glob(".tmp*")):  # safetensors writes the latter
            with suppress(OSError):  # another process was faster
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()
