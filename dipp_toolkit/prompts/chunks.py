"""The files of a prompt cache: each a few hundred prompts with their embeddings, row by row, in safetensors' format.

A row of `N` tokens is kept without the zeros that it ends in, which is where masked tokens are, and is filled up to `N`
again as it is read: `(N, channels)` in, `(N, channels)` out, the same bits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..diffusion.condition import Condition
from ..errors import RequestError

ENDING = ".safetensors"
CUT = f".cut{ENDING}"
"""Ends the name of a file of prompts that were longer than what the text encoders read of them."""
PARTIAL = ".partial"
ABANDONED = 3600
"""Seconds after which a chunk that nobody finished writing is removed."""
HALF = (torch.float16, torch.bfloat16)
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By size in bytes: a number's bits, so that -0.0 is not taken for 0."""


def damaged(path: Path) -> RequestError:
    """What is said of a chunk that cannot be used."""
    return RequestError(f"The prompt cache file {path} is damaged. Delete it; its prompts are encoded again.")


def version_of(path: Path) -> tuple[int, int, int]:
    """What differs once a file was exchanged or written to."""
    about = path.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns


def write_chunk(path: Path, condition: Condition, dtype: torch.dtype = torch.float32) -> None:
    """Write a chunk.

    Args:
        path: where to.
        condition: its rows.
        dtype: that floats are kept in where it loses nothing, as of a text encoder whose weights are of it.

    Raises:
        OSError: it cannot be written.
    """
    tensors, rows = {}, {}
    for name, tensor in condition.tensors.items():
        values = tensor.detach().cpu()
        if values.is_floating_point() and torch.equal(values.to(dtype).to(values.dtype), values):
            values = values.to(dtype)
        if values.ndim == 1:
            values = values[:, None]
        lengths = _lengths(values)
        tensors[name] = torch.cat([row[:length] for row, length in zip(values, lengths, strict=True)])
        ends = list(accumulate(lengths))
        rows[name] = {"length": values.shape[1] if tensor.ndim > 1 else 0, "ends": ends}
    about = {"prompts": json.dumps(list(condition.prompts)), "rows": json.dumps(rows)}
    save_file(tensors, path, metadata=about)


def _lengths(values: torch.Tensor) -> list[int]:
    """Of each row of `(batch, N, ...)` the number of entries, from 1, behind which there are zeros alone."""
    bits = values.contiguous().view(INTEGERS[values.element_size()]).reshape(*values.shape[:2], -1)
    places = torch.arange(1, values.shape[1] + 1)
    return torch.where((bits != 0).any(2), places, 1).amax(1).tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class OpenChunk:
    """A chunk whose tensors are mapped from its file.

    Attributes:
        path: the file.
        version: of the file.
        prompts: row by row.
        tensors: by name, the rows one after the other; a row is read when it is asked for.
        lengths: by name, entries of a whole row; 0 where a row is a number.
        ends: by name, where each row ends in the tensor.
    """

    path: Path
    version: tuple[int, int, int]
    prompts: list[str]
    tensors: Mapping[str, Any]
    lengths: Mapping[str, int]
    ends: Mapping[str, list[int]]

    def row(self, index: int) -> dict[str, torch.Tensor]:
        """One prompt's tensors, floats of half precision as float32.

        Raises:
            RequestError: the chunk is damaged.
        """
        try:
            return {name: self._row(name, index) for name in self.tensors}
        except Exception as error:  # safetensors raises an error of its own
            raise damaged(self.path) from error

    def _row(self, name: str, index: int) -> torch.Tensor:
        start, end = self.ends[name][index - 1] if index else 0, self.ends[name][index]
        values: torch.Tensor = self.tensors[name][start:end]
        if values.dtype in HALF:
            values = values.float()
        if not self.lengths[name]:
            return values[0]
        row = values.new_zeros(self.lengths[name], *values.shape[1:])
        row[: end - start] = values
        return row


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
        about = file.metadata()
        prompts, rows = json.loads(about["prompts"]), json.loads(about["rows"])
        tensors = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        if not isinstance(prompts, list) or {type(one) for one in prompts} != {str} or rows.keys() != tensors.keys():
            raise ValueError("no chunk")
        lengths = {name: _whole(rows[name]["length"]) for name in tensors}
        ends = {name: [_whole(one) for one in rows[name]["ends"]] for name in tensors}
        for name, one in tensors.items():
            sizes = [end - start for start, end in pairwise([0, *ends[name]])]
            if len(sizes) != len(prompts) or sum(sizes) != one.get_shape()[0]:
                raise ValueError("no chunk")
            if not all(1 <= size <= max(lengths[name], 1) for size in sizes):
                raise ValueError("no chunk")
    except Exception as error:  # safetensors raises an error of its own
        raise damaged(path) from error
    return OpenChunk(path, version, prompts, tensors, lengths, ends)


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("no chunk")
    return value


def remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed left of chunks that they were writing."""
    with suppress(OSError):  # the folder cannot be written
        for path in (*folder.glob(f".*{PARTIAL}"), *folder.glob(".tmp*")):  # safetensors writes the latter
            with suppress(OSError):  # another process was faster
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()
