"""Converted weights, kept in a folder below `$DIPP_CACHE/converted` that is named after all that it was made of.

It appears whole or not at all. Of several processes that want the same folder, the first makes it and the others wait;
what a kill leaves is removed by the next one that makes it. Networks published as `.bin` files alone are converted to
safetensors here; they are read with `weights_only=True`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import RequestError
from ...utils.atomic import whole_folder
from ...utils.content_digests import file_digest
from ...utils.folder_lock import NO_LOCKS
from ...utils.paths import cache_place
from ...utils.tensor_files import read_state, tensors_of
from ..files.weight_files import BASES, PICKLE, SAFETENSORS, is_weights, weights_in

FORMAT = 1
"""Of what is kept; another one makes everything anew."""


def converted_folder(made_of: Any, make: Callable[[Path], None]) -> Path:
    """The folder that was made of these things, made now where it is not there yet.

    Args:
        made_of: all that decides its content, digests of files among it (`content_digests.file_digest`); anything that
            is JSON or has a distinctive `repr`.
        make: fills an empty folder; whatever it raises leaves nothing behind.

    Returns:
        The folder, for reading alone.

    Raises:
        RequestError: the cache cannot be written.
    """
    key = hashlib.sha256(json.dumps([FORMAT, made_of], sort_keys=True, default=repr).encode()).hexdigest()[:32]
    base = cache_place("converted")
    folder = base / key
    if folder.is_dir():
        return folder
    try:
        base.mkdir(parents=True, exist_ok=True)
        with _alone(base / f".{key}.lock") as alone:
            place = folder if alone else folder.with_name(f"{key}-{os.getpid()}")
            if not folder.is_dir():
                with whole_folder(place) as beside:
                    beside.mkdir()
                    make(beside)
            if not alone:
                _moved(place, folder)
    except OSError as error:
        raise RequestError(
            f"Cannot keep converted weights in {base}: {error.strerror or error}. Make room, or name another folder "
            "with DIPP_CACHE."
        ) from error
    return folder


def _moved(place: Path, folder: Path) -> None:
    """Put what was made without a lock in its place, unless another process was faster."""
    with suppress(OSError):
        place.rename(folder)
    shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Wait until no other process is at this place; the lock ends with the process, however that ends.

    Yields False where the file system has no locks. The lock's file stays: removing it would let in a third process
    beside one that waits.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            held = True
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            held = False
        yield held
    finally:
        os.close(descriptor)


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
    position = next(index for index, base in enumerate(BASES[PICKLE]) if weights.files[0].startswith(base))
    base = BASES[SAFETENSORS][position]
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
    for name, source in tensors.items():
        tensor = source.detach().contiguous()
        shared = tensor.data_ptr() in places or tensor.untyped_storage().nbytes() != tensor.nbytes
        content[name] = tensor.clone() if shared else tensor
        places.add(tensor.data_ptr())
    save_file(content, path, metadata={"format": "pt"})
