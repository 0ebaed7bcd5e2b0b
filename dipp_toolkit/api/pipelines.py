"""A diffusers pipeline object as a folder: everything here reads pipelines from folders, and a run that resumes too."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import RequestError, first_line
from ..models.files.folders import quiet_loading
from ..training.run_state.start_record import tensors_digest
from ..utils.atomic import whole_folder
from ..utils.fingerprint import digest_of
from ..utils.paths import cache_place


def is_pipeline(given: Any) -> bool:
    """Whether something is a `diffusers.DiffusionPipeline`."""
    library = sys.modules.get("diffusers")  # it is loaded wherever one of its objects is
    return library is not None and isinstance(given, library.DiffusionPipeline)


def saved_pipeline(pipeline: Any) -> Path:
    """The folder of a pipeline as it is in memory, below `$DIPP_CACHE/pipelines` (`~/.cache/dipp/pipelines`).

    It is named by a digest of weights, configurations and vocabularies, so that the same pipeline is written once, and
    settings that name the folder name the same pipeline for ever.

    Raises:
        RequestError: a LoRA is loaded beside its weights, or it cannot be written.
    """
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module) and getattr(part, "peft_config", None):
            raise RequestError(
                f"The {name} of the {type(pipeline).__name__} has a LoRA beside its weights. Make it part of them "
                "first: pipeline.fuse_lora(), then pipeline.unload_lora_weights()."
            )
    place = cache_place("pipelines") / f"{type(pipeline).__name__}-{_digest(pipeline)[:16]}"
    if place.is_dir():
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(place) as beside, quiet_loading():
            pipeline.save_pretrained(beside, safe_serialization=True)
    except OSError as error:
        raise RequestError(
            f"Cannot write the pipeline to {place}: {error.strerror or first_line(error)}. Make room, or name another "
            "folder with DIPP_CACHE."
        ) from error
    return place


def _digest(pipeline: Any) -> str:
    parts = {name: _part(part) for name, part in sorted(pipeline.components.items())}
    return digest_of([type(pipeline).__name__, parts, _plain(pipeline.config)])


def _plain(config: Any) -> dict[str, Any]:
    """A configuration without what only says where it came from."""
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config or {})
    return {name: value for name, value in values.items() if not name.startswith("_")}


def _part(part: Any) -> Any:
    about = [type(part).__name__, _plain(getattr(part, "config", None))]
    if isinstance(part, nn.Module):
        return [*about, tensors_digest(part.state_dict())]
    if hasattr(part, "get_vocab"):
        return [*about, digest_of(part.get_vocab()), getattr(part, "model_max_length", None)]
    return about
