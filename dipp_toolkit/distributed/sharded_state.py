"""Nested states as tensors by path and a skeleton of plain values around them, and back; sharded ones in pieces.

`torch.save` and torch's distributed checkpoints pickle what stands around the tensors. Here that is JSON, and the
tensors are safetensors, so that reading a checkpoint runs no code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TENSOR, SHARDS, TUPLE, INT_KEYS = "__tensor__", "__shards__", "__tuple__", "__int_keys__"


@dataclass(frozen=True)
class Pieces:
    """A tensor that lies in the files of several processes, each with some of its rows, in order.

    Attributes:
        files: opened by `safetensors.safe_open`.
        name: of the tensor in each.
        shape: of the whole.
    """

    files: Sequence[Any]
    name: str
    shape: tuple[int, ...]

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of the whole; nothing else is read."""
        pieces, at = [], 0
        for file in self.files:
            piece = file.get_slice(self.name)
            count = piece.get_shape()[0]
            low, high = max(start - at, 0), min(stop - at, count)
            if low < high:
                pieces.append(piece[low:high])
            at += count
        return torch.cat(pieces) if pieces else self.files[0].get_tensor(self.name)[:0]

    def whole(self) -> Tensor:
        """All rows."""
        return self.rows(0, self.shape[0])


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is one process's part of a larger one, cut along its first dimension."""
    if not hasattr(tensor, "to_local"):
        return False
    from torch.distributed.tensor import Shard

    return any(isinstance(placement, Shard) for placement in tensor.placements)  # type: ignore[attr-defined]


def _own(tensor: Any) -> Tensor:
    """The part of a tensor that this process holds."""
    own: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return own


def flatten(
    value: Any, path: str, tensors: dict[str, Tensor], shards: dict[str, Tensor], copied: Callable[[Tensor], Tensor]
) -> Any:
    """The skeleton of a state; its tensors go into `tensors`, this process's part of sharded ones into `shards`.

    Args:
        value: the state, or a part of it.
        path: of that part.
        tensors: filled with copies.
        shards: likewise.
        copied: makes a contiguous copy in the host's memory.

    Raises:
        TypeError: the state holds something else than tensors, numbers, strings, lists and dictionaries.
    """
    if isinstance(value, Tensor):
        if is_sharded(value):
            shards[path] = copied(_own(value))
            return {SHARDS: path, "shape": list(value.shape)}
        tensors[path] = copied(_own(value))
        return {TENSOR: path}
    if isinstance(value, dict):
        children = {str(key): flatten(child, f"{path}/{key}", tensors, shards, copied) for key, child in value.items()}
        return {INT_KEYS: children} if value and all(isinstance(key, int) for key in value) else children
    if isinstance(value, (list, tuple)):
        listed = [flatten(child, f"{path}/{index}", tensors, shards, copied) for index, child in enumerate(value)]
        return {TUPLE: listed} if isinstance(value, tuple) else listed
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"A checkpoint holds tensors, numbers, strings, lists and dictionaries; {path} is a {type(value).__name__}."
    )


def restore(skeleton: Any, tensors: Mapping[str, Tensor], files: Sequence[Any] = ()) -> Any:
    """The inverse of `flatten`; a sharded tensor becomes `Pieces` of the files."""
    if isinstance(skeleton, list):
        return [restore(child, tensors, files) for child in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    value: Any
    match skeleton:
        case {"__tensor__": name, **rest} if not rest:
            value = tensors[name]
        case {"__shards__": name, "shape": shape, **rest} if not rest:
            value = Pieces(files, name, tuple(shape))
        case {"__tuple__": children, **rest} if not rest:
            value = tuple(restore(child, tensors, files) for child in children)
        case {"__int_keys__": children, **rest} if not rest:
            value = {int(key): restore(child, tensors, files) for key, child in children.items()}
        case _:
            value = {key: restore(child, tensors, files) for key, child in skeleton.items()}
    return value


def placed(value: Tensor | Pieces, like: Tensor) -> Tensor:
    """A saved tensor for the place of another: whole, or this process's part where that one is sharded.

    Args:
        value: as it was read.
        like: says where it goes; of the same whole shape.
    """
    if not is_sharded(like):
        return value.whole() if isinstance(value, Pieces) else value
    from torch.distributed.tensor import DTensor

    target: Any = like
    count, local = target.device_mesh.size(), target.to_local()
    length = -(-like.shape[0] // count)
    start = min(target.device_mesh.get_local_rank() * length, like.shape[0])
    stop = min(start + length, like.shape[0])
    rows = value.rows(start, stop) if isinstance(value, Pieces) else value[start:stop]
    made: Tensor = DTensor.from_local(
        rows.to(local.device, local.dtype if rows.is_floating_point() else rows.dtype),
        target.device_mesh, target.placements, run_check=False, shape=like.shape, stride=like.stride(),
    )  # fmt: skip
    return made
