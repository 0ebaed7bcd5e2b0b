"""The files that weights are published as: whole or in shards, in half precision beside or alone, pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

METADATA = {"format": "pt"}


def round_to_half(pipeline: Path) -> None:
    """Make every weight a number of half precision, so that a copy in half precision is no other model."""
    for path in pipeline.glob("*/*.safetensors"):
        save_file({name: tensor.half().float() for name, tensor in load_file(path).items()}, path, METADATA)


def add_half(pipeline: Path, *, alone: bool, shards: int = 1) -> None:
    """Write every network's fp16 variant, `<name>.fp16.safetensors`, or its shards with their index.

    Args:
        pipeline: a folder with plain `.safetensors` files.
        alone: whether the plain files are removed.
        shards: files of a variant.
    """
    for path in list(pipeline.glob("*/*.safetensors")):
        state = {name: tensor.half() for name, tensor in load_file(path).items()}
        _write(state, path.parent, path.stem, ".fp16", shards)
        if alone:
            path.unlink()


def shard(component: Path, shards: int) -> None:
    """Cut a network's one plain file into shards, with the index that both libraries read."""
    path = _plain(component)
    state = load_file(path)
    path.unlink()
    _write(state, component, path.stem, "", shards)


def write_pickle(state: Mapping[str, Tensor], path: Path) -> None:
    """A `.bin` of half precision, as `torch.save` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: tensor.half() for name, tensor in state.items()}, path)


def write_single(state: Mapping[str, Tensor], path: Path) -> None:
    """One `.safetensors` file without a configuration."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(state), path, METADATA)


def state_of(component: Path) -> dict[str, Tensor]:
    """The tensors of a network's plain file."""
    return load_file(_plain(component))


def _plain(component: Path) -> Path:
    (path,) = (path for path in component.glob("*.safetensors") if ".fp16" not in path.name)
    return path


def _write(state: Mapping[str, Tensor], folder: Path, stem: str, variant: str, shards: int) -> None:
    if shards == 1:
        save_file(dict(state), folder / f"{stem}{variant}.safetensors", METADATA)
        return
    names = sorted(state)
    files = [f"{stem}{variant}-{number + 1:05d}-of-{shards:05d}.safetensors" for number in range(shards)]
    parts = [names[number::shards] for number in range(shards)]
    for file, part in zip(files, parts, strict=True):
        save_file({name: state[name] for name in part}, folder / file, METADATA)
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in state.values())},
        "weight_map": {name: file for file, part in zip(files, parts, strict=True) for name in part},
    }
    (folder / f"{stem}.safetensors.index{variant}.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
