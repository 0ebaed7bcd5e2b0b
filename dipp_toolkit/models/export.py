"""A trained generator as a folder that plain diffusers loads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn

from ..utils.atomic import whole_folder
from ..utils.json_files import read_json
from ..utils.paths import below
from . import lora, sizes
from .files.safety import check_index, stock_pipeline
from .files.weight_files import PICKLE, is_weights, plain_name, shard_map, weights_in
from .guidance_embedding import RECORD
from .shared_components.differences import is_part
from .start_weights.store import safetensors_place
from .text_encoders import ENCODER, TOKENIZER, write_limit

ASSISTANT = "assistant"
"""Subfolder that holds the assistant a generator was trained with; diffusers ignores it."""

ADAPTER = "adapter"
"""Subfolder that holds a generator's adapter in peft's and diffusers' layouts, beside the weights it is merged into."""

NOT_NETWORKS = ("scheduler", "feature_extractor")
"""Components without weights, beside tokenizers."""


def export_pipeline(
    source: Path,
    folder: Path,
    network_name: str,
    network: nn.Module,
    scheduler: Any,
    assistant: nn.Module | None = None,
    parts: Path | None = None,
    guidance_embedding: float | None = None,
    image_sizes: str = "",
) -> None:
    """Write a pipeline folder. It is put together beside its place and renamed, so it appears whole or not at all.

    Args:
        source: the pipeline folder whose other components are copied.
        folder: where to; an existing folder, or a link in its place, is replaced.
        network_name: the component that `network` is.
        network: the generator's; an adapter is merged, and written to `adapter/` as well.
        scheduler: takes the single step.
        assistant: kept in `assistant/`, as an adapter where it is one.
        parts: the pipeline folder whose text encoders, tokenizers and autoencoder are copied; `source` where None.
        guidance_embedding: the guidance that the network is told, which the index records; None where it takes none.
        image_sizes: the sizes that it was trained at, which the index records; empty for its configuration's own.
    """
    index = read_json(source / "model_index.json")
    check_index(index, source)
    if guidance_embedding is not None:
        index[RECORD] = guidance_embedding
    index.pop(sizes.RECORD, None)
    if image_sizes:
        index[sizes.RECORD] = image_sizes
    places = dict.fromkeys(index, source)
    if parts is not None and parts.resolve() != source.resolve():
        other = read_json(parts / "model_index.json")
        check_index(other, parts)
        own = {name: value for name, value in index.items() if not _is_part(name)}
        index = own | {name: value for name, value in other.items() if _is_part(name)}
        places = {name: parts if _is_part(name) else source for name in index}
    with whole_folder(folder) as beside:
        beside.mkdir()
        _fill(beside, index, places, network_name, network, scheduler, assistant)


def copy_component(source: Path, folder: Path) -> None:
    """Copy a component as plain diffusers loads it: of its weights those that are read, under their plain names.

    Args:
        source: the component's folder.
        folder: where to; it does not exist yet.

    Raises:
        RequestError: an index of weights is damaged.
    """
    folder.mkdir()
    source = safetensors_place(source)
    weights = weights_in(source)
    chosen = () if weights is None else weights.names
    for path in sorted(source.iterdir()):
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
        elif weights is not None and path.name == weights.index:
            index = read_json(path)
            index["weight_map"] = {key: plain_name(name) for key, name in shard_map(path).items()}
            (folder / plain_name(path.name)).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        elif path.name in chosen or not is_weights(path.name):
            shutil.copyfile(path, folder / plain_name(path.name))


def _is_whole(name: str, place: Path) -> bool:
    """Whether a component is there, and of a network more than its configuration."""
    needs_weights = name not in NOT_NETWORKS and not name.startswith("tokenizer") and (place / "config.json").is_file()
    return place.is_dir() and (not needs_weights or bool(weights_in(place) or weights_in(place, PICKLE)))


def _is_part(name: str) -> bool:
    """Whether an entry of an index is of what encodes prompts or decodes latents."""
    return is_part(name) or name == "force_zeros_for_empty_prompt"


def _fill(
    beside: Path,
    index: dict[str, Any],
    places: Mapping[str, Path],
    network_name: str,
    network: nn.Module,
    scheduler: Any,
    assistant: nn.Module | None,
) -> None:
    for name, value in list(index.items()):
        if not (isinstance(value, list) and any(value)) or name in (network_name, "scheduler"):
            continue
        if _is_whole(name, places[name] / name):
            copy_component(places[name] / name, below(beside, name))
        else:  # such as a safety checker that was not fetched; stock pipelines do without
            index[name] = [None, None]
    for name in (name for name in index if name.startswith(TOKENIZER)):
        encoder = name.replace(TOKENIZER, ENCODER)
        if (beside / name).is_dir() and (beside / encoder / "config.json").is_file():
            write_limit(beside, name, encoder)
    if index.get("safety_checker") == [None, None]:
        index["requires_safety_checker"] = False
    if lora.is_adapted(network):
        lora.save_adapter(network, beside / ADAPTER, stock_pipeline(index), network_name)
        network = lora.merged(network)
    cast(Any, network).save_pretrained(beside / network_name)
    if assistant is not None and lora.is_adapted(assistant):
        lora.save_adapter(assistant, beside / ASSISTANT)
    elif assistant is not None:
        cast(Any, assistant).save_pretrained(beside / ASSISTANT)
    scheduler.save_pretrained(beside / "scheduler")
    index[network_name] = ["diffusers", type(network).__name__]  # older folders name classes that have moved
    index["scheduler"] = ["diffusers", type(scheduler).__name__]
    (beside / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
