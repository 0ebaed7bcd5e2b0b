"""One prompt's tensors as bytes, in safetensors' format, and back: the same bits.

A row of `(N, channels)` is kept without the zeros that it ends in, which is where masked tokens are, and is filled up
to `N` again as it is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from safetensors.torch import load, save

from ..diffusion.condition import Condition

HALF = (torch.float16, torch.bfloat16)
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By size in bytes: a number's bits, so that -0.0 is not taken for 0."""


def packed_rows(condition: Condition, dtype: torch.dtype = torch.float32) -> Iterator[tuple[str, bytes]]:
    """For each prompt the lengths of its whole rows, as JSON, 0 for a number, and its tensors.

    Args:
        condition: its rows.
        dtype: that floats are kept in where it loses nothing, as of a text encoder whose weights are of it.
    """
    tensors = {name: _smallest(tensor.detach().cpu(), dtype) for name, tensor in condition.tensors.items()}
    ends = {name: _ends(values) for name, values in tensors.items() if values.ndim > 1}
    lengths = json.dumps({name: values.shape[1] if name in ends else 0 for name, values in tensors.items()})
    for row in range(len(condition.prompts)):
        kept = {name: values[row] for name, values in tensors.items()}
        kept |= {name: kept[name][: rows[row]] for name, rows in ends.items()}
        yield lengths, save({name: values.contiguous() for name, values in kept.items()})


@dataclass(frozen=True)
class KeptTensor:
    """A prompt's tensor as it is kept.

    Attributes:
        values: without the zeros that it ends in, in the precision that it is kept in.
        shape: of the whole.
    """

    values: torch.Tensor
    shape: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        """Of the whole: float32 for half precision."""
        return torch.float32 if self.values.dtype in HALF else self.values.dtype

    def fill(self, row: torch.Tensor) -> None:
        """Write the whole into a row of this shape."""
        if self.values.shape == row.shape:
            row.copy_(self.values)
            return
        row[: len(self.values)].copy_(self.values)
        row[len(self.values) :].zero_()


def unpacked_row(lengths: str, data: bytes) -> dict[str, KeptTensor]:
    """One prompt's tensors by name.

    Raises:
        Exception: of JSON, safetensors or torch, where the two are not what `packed_rows` gave.
    """
    whole, tensors = json.loads(lengths), {}
    for name, values in load(data).items():
        length = whole[name]
        if type(length) is not int:
            raise ValueError("a length is not a whole number")
        if length and len(values) > length:
            raise ValueError("a tensor is longer than its length")
        tensors[name] = KeptTensor(values, (length, *values.shape[1:]) if length else tuple(values.shape))
        torch.empty(tensors[name].shape, dtype=tensors[name].dtype)  # fails where no memory holds what it says
    return tensors


def _smallest(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if values.is_floating_point() and torch.equal(values.to(dtype).to(values.dtype), values):
        return values.to(dtype)
    return values


def _ends(values: torch.Tensor) -> list[int]:
    """Of each row of `(batch, N, ...)` the number of entries, from 1, behind which there are zeros alone."""
    bits = values.contiguous().view(INTEGERS[values.element_size()]).reshape(*values.shape[:2], -1)
    places = torch.arange(1, values.shape[1] + 1)
    return torch.where((bits != 0).any(2), places, 1).amax(1).tolist()  # type: ignore[no-any-return]
