"""A trained generator as a folder that plain diffusers loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

from torch import nn

from . import adapters
from .atomic import whole_folder
from .contained import below
from .pipeline_index import check_index
from .plain_json import read_json

ASSISTANT = "assistant"
"""Subfolder that holds the assistant a generator was trained with; diffusers ignores it."""

ADAPTER = "adapter"
"""Subfolder that holds a generator's adapter in peft's and diffusers' layouts, beside the weights it is merged into."""


def export_pipeline(
    source: Path,
    folder: Path,
    network_name: str,
    network: nn.Module,
    scheduler: Any,
    assistant: nn.Module | None = None,
) -> None:
    """Write a pipeline folder. It is put together beside its place and renamed, so it appears whole or not at all.

    Args:
        source: the pipeline folder whose other components are copied.
        folder: where to; an existing folder, or a link in its place, is replaced.
        network_name: the component that `network` is.
        network: the generator's; an adapter is merged, and written to `adapter/` as well.
        scheduler: takes the single step.
        assistant: kept in `assistant/`, as an adapter where it is one.
    """
    index = read_json(source / "model_index.json")
    check_index(index, source)
    with whole_folder(folder) as beside:
        beside.mkdir()
        _fill(beside, index, source, network_name, network, scheduler, assistant)


def _fill(
    beside: Path,
    index: dict[str, Any],
    source: Path,
    network_name: str,
    network: nn.Module,
    scheduler: Any,
    assistant: nn.Module | None,
) -> None:
    for name, value in index.items():
        present = isinstance(value, list) and any(value) and (source / name).is_dir()
        if present and name not in (network_name, "scheduler"):
            shutil.copytree(source / name, below(beside, name))
    if adapters.is_adapted(network):
        import diffusers

        pipeline = getattr(diffusers, str(index["_class_name"]), None)
        adapters.save_adapter(network, beside / ADAPTER, pipeline, network_name)
        network = adapters.merged(network)
    cast(Any, network).save_pretrained(beside / network_name)
    if assistant is not None and adapters.is_adapted(assistant):
        adapters.save_adapter(assistant, beside / ASSISTANT)
    elif assistant is not None:
        cast(Any, assistant).save_pretrained(beside / ASSISTANT)
    scheduler.save_pretrained(beside / "scheduler")
    index[network_name] = ["diffusers", type(network).__name__]  # older folders name classes that have moved
    index["scheduler"] = ["diffusers", type(scheduler).__name__]
    (beside / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
