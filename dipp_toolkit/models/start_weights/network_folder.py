"""Weights of a network from elsewhere, over a pipeline: a folder in diffusers' layout, converted once where needed.

A file in diffusers' names is copied, one in the names of the original code is converted by diffusers' own
`from_single_file`. What does not fit the pipeline's network is refused with names and shapes.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...errors import DippError, RequestError, first_line
from ...utils.content_digests import file_digest
from ...utils.json_files import read_json
from ...utils.messages import shown
from ..components import component_class, empty_component
from ..family import PublishedNames
from ..files.download_lists import INDEX, network_files
from ..files.fetching import NotHere, only_looking
from ..files.folders import check_files, family_of, fetched_files, quiet_loading
from ..files.safety import check_config
from ..files.weight_files import DIFFUSERS_BASE, PICKLE, WeightFiles, check_shards, weights_in, what_is_there
from .checkpoint import Checkpoint, misfit, read_checkpoint, shapes_of_files
from .source import WeightSource, parse_source
from .store import converted_folder, write_network

CONFIG = "config.json"
ORIGINAL = ("input_blocks.", "double_blocks.", "joint_blocks.")
"""Parts of names in the original code of Stable Diffusion, Flux and Stable Diffusion 3, which diffusers converts."""
LDM_PREFIX = "model.diffusion_model."
"""Stands before a network's names in a whole checkpoint; diffusers looks for a UNet's there alone."""
LORA = ("lora_", ".lora.", "hada_", "lokr_")


def network_folder(text: str, folder: Path, name: str) -> Path:
    """The folder of the weights that somebody named, for a pipeline's network.

    Args:
        text: a file, a folder, `OWNER/REPO:path/in/repo`, or `OWNER/REPO` with a network or pipeline in diffusers'
            layout.
        folder: the pipeline's.
        name: of its network, `"unet"` or `"transformer"`.

    Returns:
        A folder of safetensors and `config.json`. In a dry run, the pipeline's own where these would be fetched or
        converted.

    Raises:
        RequestError: they are not there, cannot be fetched, or do not fit the network.
    """
    source = parse_source(text)
    try:
        place = _place(source, name)
    except NotHere:  # noted; a dry run goes on with what is known
        return folder / name
    return _of_folder(source, place, folder, name) if place.is_dir() else _of_file(place, folder, name)


def _place(source: WeightSource, name: str) -> Path:
    """The file or folder, from this machine, the hub's cache or the hub."""
    if source.hub is None:
        local = Path(source.text).expanduser()
        if not local.is_dir():
            return source.file()
        pipeline = next((place for place in (local, local / "final") if (place / INDEX).is_file()), None)
        return local if pipeline is None else pipeline / name
    if source.is_file:
        return source.file()

    def choose(listing: Sequence[str]) -> list[str]:
        chosen = network_files(listing, _inside(source, listing, name))
        if not chosen:
            raise RequestError(f"{source.hub} has no folder {source.inside}. Its files: {', '.join(listing[:8])}.")
        return chosen

    anchors = [f"{source.inside}/{CONFIG}"] if source.inside else [f"{name}/{CONFIG}", CONFIG]
    root = fetched_files(source.hub, anchors, choose)
    return root / (source.inside or (name if (root / name).is_dir() else ""))


def _inside(source: WeightSource, listing: Sequence[str], name: str) -> str:
    return source.inside or (name if INDEX in listing else "")


def _of_folder(source: WeightSource, place: Path, folder: Path, name: str) -> Path:
    """A folder with a bare network: itself where it can be loaded from, else what it is converted into."""
    check_files(place, deep=False)
    weights, pickled = weights_in(place), weights_in(place, PICKLE)
    own = place if (place / CONFIG).is_file() else folder / name
    if (place / CONFIG).is_file():
        _check_own_config(place, folder, name)
    shell = empty_component(folder, name, own)
    if weights is not None:
        check_shards(place, weights)
        problem = misfit(shapes_of_files(place, weights.files), _expected(shell))
        if problem:
            raise _does_not_fit(place, folder, name, problem)
        if own == place:
            return place
        return _stored(place, weights, own, shell, folder, name)
    if pickled is None:
        raise RequestError(
            f"'{shown(source.text)}' has no network weights in diffusers' layout; {what_is_there(place)}. Name "
            "one file of them."
        )
    return _stored(place, pickled, own, shell, folder, name)


def _check_own_config(place: Path, folder: Path, name: str) -> None:
    config = read_json(place / CONFIG)
    check_config(config, place / CONFIG)
    kind, stated = component_class(folder, name).__name__, config.get("_class_name")
    if stated not in (None, kind):
        raise RequestError(
            f"{place} holds the weights of a {shown(stated)}, and the {name} of {folder} is a {kind}. Name the "
            "pipeline that they were made for as the generator."
        )


def _stored(place: Path, weights: WeightFiles, config: Path, shell: nn.Module, folder: Path, name: str) -> Path:
    """Weights of several files, or pickled ones, as one file of safetensors."""
    paths = [place / file for file in weights.files]
    made_of = ["files", *map(file_digest, paths), file_digest(config / CONFIG)]
    tensors: dict[str, Tensor] = {}

    def read() -> None:
        for path in paths:
            tensors.update(read_checkpoint(path, _expected(shell)).tensors)
        problem = misfit({key: tuple(tensor.shape) for key, tensor in tensors.items()}, _expected(shell))
        if problem:
            raise _does_not_fit(place, folder, name, problem)

    def make(beside: Path) -> None:
        read()
        _write(beside, tensors, config)

    if only_looking():
        read()
        return folder / name
    return converted_folder(made_of, make)


def _of_file(path: Path, folder: Path, name: str) -> Path:
    """One file of weights over the network's configuration."""
    shell = empty_component(folder, name)
    made_of = ["file", file_digest(path), file_digest(folder / name / CONFIG), type(shell).__name__]

    def make(beside: Path) -> None:
        _write(beside, _fitting(path, shell, folder, name), folder / name)

    if only_looking():
        _fitting(path, shell, folder, name)
        return folder / name
    return converted_folder(made_of, make)


def _fitting(path: Path, shell: nn.Module, folder: Path, name: str) -> dict[str, Tensor]:
    """A file's tensors under diffusers' names, every one of the network's among them.

    Raises:
        RequestError: they are of another network, or not a network at all.
    """
    expected = _expected(shell)
    checkpoint = read_checkpoint(path, expected)
    lora = next((key for key in checkpoint.content if any(part in key for part in LORA)), None)
    if lora is not None:
        raise RequestError(
            f"{path} is a LoRA, not a whole network: it has tensors such as '{shown(lora)}'. Give it to the setting "
            "lora instead."
        )
    problem = misfit(_without_ignored(checkpoint, shell), expected)
    authors = _of_the_family(checkpoint, folder) if problem else None
    if authors is not None:
        tensors = authors
        problem = misfit({key: tuple(tensor.shape) for key, tensor in tensors.items()}, expected)
    elif problem and any(part in key for key in checkpoint.content for part in ORIGINAL):
        tensors = _converted(checkpoint, folder, name)
        problem = misfit({key: tuple(tensor.shape) for key, tensor in tensors.items()}, expected)
    else:
        tensors = {key: tensor for key, tensor in checkpoint.tensors.items() if key in expected}
    if problem:
        raise _does_not_fit(path, folder, name, problem)
    return tensors


def _of_the_family(checkpoint: Checkpoint, folder: Path) -> dict[str, Tensor] | None:
    """Tensors in names that the pipeline's family knows, under diffusers'; None where they are not such names."""
    family = cast(Any, family_of(folder))
    return family.from_published_names(checkpoint.content) if isinstance(family, PublishedNames) else None


def _converted(checkpoint: Checkpoint, folder: Path, name: str) -> dict[str, Tensor]:
    """Tensors in the original code's names, under diffusers'."""
    before = Counter(key[: key.index(part)] for key in checkpoint.content for part in ORIGINAL if part in key)
    prefix = max(before, key=lambda prefix: before[prefix])
    tensors = {
        f"{LDM_PREFIX}{key[len(prefix) :]}": tensor
        for key, tensor in checkpoint.content.items()
        if key.startswith(prefix)
    }
    loader: Any = component_class(folder, name)
    dtype = next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), torch.float32)
    try:
        with quiet_loading():
            network = loader.from_single_file(
                tensors, config=str(folder / name), local_files_only=True, torch_dtype=dtype
            )
    except DippError:
        raise
    except Exception as error:  # diffusers' converters raise KeyError, IndexError, ValueError and others
        what = f"'{shown(error.args[0])}' is missing" if isinstance(error, KeyError) else first_line(error)
        raise _does_not_fit(
            checkpoint.path, folder, name, f"diffusers cannot convert its {len(tensors)} tensors ({what})"
        ) from error
    return {key: tensor for key, tensor in network.state_dict().items() if not tensor.is_meta}


def _expected(shell: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in shell.state_dict().items()}


def _without_ignored(checkpoint: Checkpoint, shell: Any) -> dict[str, tuple[int, ...]]:
    """The shapes without tensors that the network's class says to pass over."""
    patterns = getattr(shell, "_keys_to_ignore_on_load_unexpected", None) or ()
    return {
        key: shape
        for key, shape in checkpoint.shapes.items()
        if not any(re.search(pattern, key) for pattern in patterns)
    }


def _does_not_fit(path: Path, folder: Path, name: str, problem: str) -> RequestError:
    return RequestError(
        f"{path} does not fit the {name} of {folder}: {problem}. It is damaged, or of another network; name the "
        "pipeline that it was made for as the generator, or another file."
    )


def _write(beside: Path, tensors: dict[str, Tensor], config: Path) -> None:
    write_network(beside / f"{DIFFUSERS_BASE}.safetensors", tensors)
    shutil.copyfile(config / CONFIG, beside / CONFIG)
