"""Networks that were published as `.bin` files alone: read with `weights_only=True`, and kept as safetensors."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ...utils.content_digests import file_digest
from ...utils.tensor_files import read_state, tensors_of
from ..files.weight_files import BASES, PICKLE, SAFETENSORS, is_weights, weights_in
from .store import converted_folder


def safetensors_place(place: Path) -> Path:
    """The folder itself where it has safetensors, or no weights; else the one that its `.bin` files are converted into.

    Args:
        place: of a network's configuration and weights.

    Raises:
        RequestError: a file is damaged, or would run code when it is read.
    """
    weights = weights_in(place, PICKLE)
    if weights_in(place) is not None or weights is None:
        return place
    base = BASES[SAFETENSORS][
        BASES[PICKLE].index(next(one for one in BASES[PICKLE] if weights.files[0].startswith(one)))
    ]
    others = sorted(path for path in place.iterdir() if path.is_file() and not is_weights(path.name))
    digests = [[path.name, file_digest(path)] for path in (*(place / file for file in weights.files), *others)]

    def make(beside: Path) -> None:
        tensors: dict[str, Tensor] = {}
        for file in weights.files:
            tensors |= tensors_of(read_state(place / file), place / file)
        write_network(beside / f"{base}.safetensors", tensors)
        for path in others:
            shutil.copyfile(path, beside / path.name)

    return converted_folder(["pickled", digests], make)


def write_network(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write safetensors that diffusers and transformers load; of tensors that share memory each has its own."""
    from safetensors.torch import save_file

    content: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, one in tensors.items():
        tensor = one.detach().contiguous()
        shared = tensor.data_ptr() in places or tensor.untyped_storage().nbytes() != tensor.nbytes
        content[name] = tensor.clone() if shared else tensor
        places.add(tensor.data_ptr())
    save_file(content, path, metadata={"format": "pt"})
