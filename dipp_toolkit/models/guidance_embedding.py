"""Guidance that is distilled into an input of the network: its value is a setting, and a folder records it.

FLUX.1-dev's transformer, for one, is told a guidance scale and needs no second pass with the empty prompt. The value
belongs to what a network is: reference, assistant and generator are told the same one in a run, and an exported folder
says in its `model_index.json` which it was, under a name that begins with an underscore: diffusers passes over those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

from ..errors import RequestError
from ..utils.json_files import read_json
from ..utils.messages import quoted
from ..utils.paths import is_there, user_path
from .family import EmbeddedGuidance, PipelineFamily

FIELD = "embedded_guidance"
RECORD = "_guidance_embedding"
"""Where `model_index.json` holds the value that a generator was trained with."""


def told_guidance(family: PipelineFamily) -> float | None:
    """The guidance that a network of this family takes as an input; None where it takes none."""
    return family.embedded_guidance if isinstance(family, EmbeddedGuidance) else None


def with_guidance_embedding(family: PipelineFamily, value: float | None, folder: Path) -> PipelineFamily:
    """The family, its network told another guidance.

    Args:
        family: of the folder.
        value: of the input; None leaves it as it is.
        folder: the pipeline's, for the message.

    Raises:
        RequestError: its network takes no guidance as an input.
    """
    if value is None:
        return family
    if told_guidance(family) is None:
        raise RequestError(
            f"The network of {folder} takes no guidance as an input, so guidance_embedding={value:g} has no effect on "
            "it. Leave guidance_embedding out; the guidance of two passes is the setting guidance."
        )
    return cast(PipelineFamily, replace(cast(Any, family), **{FIELD: float(value)}))


def told_otherwise(family: Any) -> float | None:
    """The guidance that a network is told, where that is another than its family's own; None elsewhere."""
    if not isinstance(family, EmbeddedGuidance) or family.embedded_guidance is None:
        return None
    own = next((field.default for field in fields(cast(Any, family)) if field.name == FIELD), None)
    return None if family.embedded_guidance == own else family.embedded_guidance


def saved_guidance(name: str) -> float | None:
    """What `recorded_guidance` says of a pipeline or run folder on this machine; None where there is none of this name.

    Raises:
        RequestError: its index is not JSON, or the value no number.
    """
    plain = name.removeprefix("diffusers:")
    if not is_there(plain):
        return None
    path = user_path(plain)
    found = next((folder for folder in (path, path / "final") if (folder / "model_index.json").is_file()), None)
    return None if found is None else recorded_guidance(read_json(found / "model_index.json"), found)


def recorded_guidance(index: Mapping[str, Any], folder: Path) -> float | None:
    """The value that a folder's `model_index.json` records; None where it records none.

    Raises:
        RequestError: it is not a number of at least 0.
    """
    value = index.get(RECORD)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise RequestError(
            f"{folder / 'model_index.json'} has {RECORD}={quoted(value)}; expected a number of at least 0, such as 3.5."
        )
    return float(value)
