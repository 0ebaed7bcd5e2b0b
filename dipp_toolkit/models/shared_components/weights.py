"""Whether two folders hold the weights of one network, whatever their files look like.

Copies of one network differ in precision (SDXL's fp16 variants beside its float32 files), in shards, and in the names
that older libraries gave to tensors. Weights are the same where every tensor's bits are equal once both are rounded to
the lower precision of the two: that is how the copy in lower precision was made. Float16 and bfloat16 copies of one
network share no such precision and count as different.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ...utils.content_digests import file_digest
from ..files.weight_files import WeightFiles, weights_in

COUNTED = "position_ids"
"""Ends the name of a table of 0, 1, 2, ... that older text encoders saved with their weights."""
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def first_difference(left: Path, right: Path, load: Callable[[Path], Mapping[str, Tensor]]) -> str | None:
    """The name of a tensor in which two folders' weights differ; None where they are the same.

    One tensor of each is in memory at a time, unless older names have to be understood.

    Args:
        left: a component's folder, with its weights.
        right: the other's.
        load: a network's tensors by its own names, from a component's folder, in any precision.

    Raises:
        OSError: a file cannot be read.
        safetensors.SafetensorError: a file is damaged.
    """
    files = [(place, _weights_of(place)) for place in (left, right)]
    if _same_files(*files):
        return None
    tensors = [_Tensors(place, weights) for place, weights in files]
    names = [{name for name in each.places if not name.endswith(COUNTED)} for each in tensors]
    names = [each - _tied(tensors[k], each, names[1 - k]) for k, each in enumerate(names)]
    if names[0] == names[1]:
        return next((name for name in sorted(names[0]) if not _equal(tensors[0][name], tensors[1][name])), None)
    loaded = [
        {name: value.to(each.lowest) if value.is_floating_point() else value for name, value in load(place).items()}
        for place, each in zip((left, right), tensors, strict=True)
    ]
    strange = loaded[0].keys() ^ loaded[1].keys()
    if strange:
        return min(strange)
    return next((name for name in sorted(loaded[0]) if not _equal(loaded[0][name], loaded[1][name])), None)


def _weights_of(place: Path) -> WeightFiles:
    weights = weights_in(place)
    if weights is None:
        raise FileNotFoundError(2, "there are no weights", str(place))
    return weights


def _same_files(left: tuple[Path, WeightFiles], right: tuple[Path, WeightFiles]) -> bool:
    pairs = [(left[0] / a, right[0] / b) for a, b in zip(left[1].files, right[1].files, strict=False)]
    return len(left[1].files) == len(right[1].files) and all(
        a.samefile(b) or (a.stat().st_size == b.stat().st_size and file_digest(a) == file_digest(b)) for a, b in pairs
    )


class _Tensors:
    """The tensors of a component's files, each read on access."""

    def __init__(self, place: Path, weights: WeightFiles):
        self._files = [safe_open(place / name, "pt") for name in weights.files]
        self.places = {name: file for file in self._files for name in file.keys()}  # noqa: SIM118

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self.places[name].get_tensor(name)
        return tensor

    @property
    def lowest(self) -> torch.dtype:
        """The lowest precision among the floats."""
        kinds = [self[name].dtype for name in self.places]
        return max(
            (kind for kind in kinds if kind.is_floating_point), key=lambda kind: -kind.itemsize, default=torch.float32
        )


def _tied(tensors: _Tensors, names: set[str], others: set[str]) -> set[str]:
    """Names that the other files lack because they hold the same tensor under another name, as T5's embedding."""
    surplus = names - others
    if len(surplus) > 2:  # names of another library's version, and not a copy of one tensor
        return set()
    return {
        name
        for name in surplus
        if any(
            alias in others and tensors.places[alias].get_slice(alias).get_shape() == list(tensors[name].shape)
            and _equal(tensors[name], tensors[alias])
            for alias in sorted(names & others)
        )
    }  # fmt: skip


def _equal(left: Tensor, right: Tensor) -> bool:
    """Whether all bits are, once both are rounded to the lower precision of the two."""
    if left.shape != right.shape:
        return False
    if left.dtype != right.dtype:
        if not (left.is_floating_point() and right.is_floating_point()) or left.itemsize == right.itemsize:
            return False
        lower = min(left.dtype, right.dtype, key=lambda kind: kind.itemsize)
        left, right = left.to(lower), right.to(lower)
    return torch.equal(_bits(left), _bits(right))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(INTEGERS[tensor.element_size()]) if tensor.is_floating_point() else tensor
