"""From the name of a generator or reference to its pipeline's folder, before anything of it is loaded."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from ...registry import get_registry
from ...utils.imports import is_python_name
from ...utils.paths import is_there
from ..blueprints import PipelineBlueprint
from .folders import resolve_folder
from .saved_generators import DIFFUSERS, saved_generator


def is_pipeline_name(kind: str, name: str) -> bool:
    """Whether a generator's or reference's name means a pipeline's folder, and not somebody's own code."""
    if _is_registered(kind, name):
        return _blueprint(name) is not None
    return not (is_python_name(name) or (kind == "generator" and saved_generator(name) is not None))


def named_folder(kind: str, name: str) -> Path | None:
    """The folder of a pipeline's weights, fetched where it is the hub's.

    Args:
        kind: `"generator"` or `"reference"`.
        name: as `load_generator` and `load_reference` take it; a published reference's name is its pipeline as a
            generator too, whose weights come from elsewhere (`generator_options`).

    Returns:
        None where the name means something that is not known to be a pipeline's folder: somebody's own code, or a
        plugin's name without a blueprint.

    Raises:
        RequestError: it cannot be fetched, or there is no such folder.
    """
    if not is_pipeline_name(kind, name):
        return None
    blueprint = _blueprint(name) if _is_registered(kind, name) else None
    if blueprint is None:
        return resolve_folder(name.removeprefix(DIFFUSERS))
    return resolve_folder(blueprint.hub) if "/" in blueprint.hub else blueprint.folder


def configured_folder(kind: str, name: str) -> Path | None:
    """A folder of the pipeline's configurations, of a published one its plugin's; None where they would be fetched."""
    if _is_registered(kind, name):
        blueprint = _blueprint(name)
        return None if blueprint is None else blueprint.folder
    return named_folder(kind, name) if is_there(name.removeprefix(DIFFUSERS)) else None


def shrink_of(reference: str) -> int | Fraction:
    """By what the sides of a reference's images are divided, where the name's plugin gives it; 1 elsewhere."""
    blueprint = _blueprint(reference) if reference in get_registry().entries["reference"] else None
    return 1 if blueprint is None else blueprint.shrink


def _is_registered(kind: str, name: str) -> bool:
    entries = get_registry().entries
    return name in entries[kind] or (kind == "generator" and name in entries["reference"])


def _blueprint(name: str) -> PipelineBlueprint | None:
    entry = get_registry().entries["blueprint"].get(name)
    built = entry.build() if entry is not None else None
    return built if isinstance(built, PipelineBlueprint) else None
