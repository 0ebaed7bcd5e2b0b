"""Which files of a folder a network's weights are read from: plain ones before variants, whole or sharded.

The libraries look for one name, `diffusion_pytorch_model.safetensors` or `model.safetensors`; a variant stands before
the ending, shards have an index beside them. Where there are no safetensors, `.bin` files have the same order of names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import RequestError
from ...utils.json_files import read_json
from ...utils.messages import shown

BASE = r"(?P<base>(?:pytorch_|diffusion_pytorch_)?model)"
NAME = re.compile(
    rf"{BASE}(?:\.(?P<variant>\w+))?(?:-(?P<shard>\d+)-of-(?P<count>\d+))?(?:\.(?P<late>\w+))?"
    r"\.(?P<format>safetensors|bin)"
)
"""Early versions of diffusers wrote a shard's variant behind its number."""
INDEX = re.compile(rf"{BASE}\.(?P<format>safetensors|bin)\.index(?:\.(?P<variant>\w+))?\.json")
SAFETENSORS, PICKLE = "safetensors", "bin"
BASES = {SAFETENSORS: ("diffusion_pytorch_model", "model"), PICKLE: ("diffusion_pytorch_model", "pytorch_model")}
"""Names that diffusers and transformers look for."""
DIFFUSERS_BASE = "diffusion_pytorch_model"
PREFERRED = ("", "fp16", "bf16")
"""Variants, the plain one first; any other one comes after them, `non_ema` last."""
OTHER_WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".msgpack", ".h5", ".onnx",
    ".onnx_data", ".pb", ".xml", ".tflite", ".gguf")  # fmt: skip
"""Endings of files of weights in all formats."""
MOST_NAMES = 8
"""Files that a message names."""


@dataclass(frozen=True)
class WeightFiles:
    """The files that a network's weights are read from.

    Attributes:
        variant: as the libraries' `variant`; None for plain files.
        files: the safetensors, in order.
        index: maps tensors to files; None where there is a single file.
    """

    variant: str | None
    files: tuple[str, ...]
    index: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All files, the index among them."""
        return self.files if self.index is None else (*self.files, self.index)


def choose_weights(names: Iterable[str], kind: str = SAFETENSORS) -> WeightFiles | None:
    """The files that weights are read from, of those in one folder; None where no variant of them is whole.

    Args:
        names: of the folder's files.
        kind: their format, `"safetensors"` or `"bin"`.
    """
    whole: dict[tuple[str, str], str] = {}
    shards: dict[tuple[str, str, int], dict[int, str]] = {}
    indexes: dict[tuple[str, str], str] = {}
    for name in sorted(names):
        if (index := INDEX.fullmatch(name)) is not None and index["format"] == kind:
            indexes[index["base"], index["variant"] or ""] = name
        elif (file := NAME.fullmatch(name)) is not None and file["format"] == kind:
            if file["base"] not in BASES[kind] or (file["variant"] and file["late"]):
                continue
            key = (file["base"], file["variant"] or file["late"] or "")
            if file["shard"] is None:
                whole[key] = name
            else:
                shards.setdefault((*key, int(file["count"])), {})[int(file["shard"])] = name
    sets = {key: WeightFiles(key[1] or None, (name,)) for key, name in whole.items()}
    for (base, variant, count), parts in shards.items():
        key = (base, variant)
        # Where one file and shards lie side by side, diffusers reads the shards and transformers the one file.
        if key in indexes and set(parts) == set(range(1, count + 1)) and (key not in sets or base == DIFFUSERS_BASE):
            sets[key] = WeightFiles(variant or None, tuple(parts[number] for number in sorted(parts)), indexes[key])
    return sets[min(sets, key=_rank)] if sets else None


def _rank(key: tuple[str, str]) -> tuple[Any, ...]:
    base, variant = key
    place = PREFERRED.index(variant) if variant in PREFERRED else len(PREFERRED) + variant.startswith("non_")
    return (place, variant, base != DIFFUSERS_BASE)


def weights_in(place: Path, kind: str = SAFETENSORS) -> WeightFiles | None:
    """`choose_weights` of a folder; None as well where there is no such folder."""
    return choose_weights((path.name for path in place.iterdir() if path.is_file()), kind) if place.is_dir() else None


def check_shards(place: Path, weights: WeightFiles) -> None:
    """Refuse an index that leads anywhere but to the files beside it.

    Args:
        place: the folder.
        weights: of it.

    Raises:
        RequestError: with the file that it names.
    """
    if weights.index is None:
        return
    named = shard_map(place / weights.index).values()
    strange = next((name for name in named if name not in weights.files), None)
    if strange is not None:
        raise RequestError(
            f"The weights in {place} cannot be loaded: {weights.index} leads to '{shown(strange)}'; expected one of "
            f"{', '.join(weights.files[:MOST_NAMES])}."
        )


def shard_map(path: Path) -> Mapping[str, str]:
    """Tensors' names with the file that each is in, from an index.

    Raises:
        RequestError: it cannot be read, or says none.
    """
    shards = read_json(path).get("weight_map")
    if not (isinstance(shards, dict) and shards and all(isinstance(shard, str) for shard in shards.values())):
        raise RequestError(f"{path} does not say which file each tensor is in; expected a 'weight_map'.")
    return shards


def plain_name(name: str) -> str:
    """The name of a file of weights, or of their index, as it is without its variant.

    >>> plain_name("model.fp16-00001-of-00002.safetensors")
    'model-00001-of-00002.safetensors'
    """
    if (index := INDEX.fullmatch(name)) is not None:
        return f"{index['base']}.{index['format']}.index.json"
    file = NAME.fullmatch(name)
    if file is None:
        return name
    shard = f"-{file['shard']}-of-{file['count']}" if file["shard"] else ""
    return f"{file['base']}{shard}.{file['format']}"


def is_weights(name: str) -> bool:
    """Whether a file holds weights, in whatever format, or is an index of them; `tokenizer.model` does not."""
    return PurePosixPath(name).suffix.lower() in OTHER_WEIGHTS or ".index." in name


def what_is_there(place: Path) -> str:
    """The files of weights in a folder, for a message."""
    names = [path.name for path in sorted(place.iterdir()) if path.is_file() and is_weights(path.name)]
    listed = ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
    return f"there are {listed}" if names else "there are no weights in any format"
