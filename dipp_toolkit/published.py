"""Published pipelines by name: what their plugins' factories call."""

from __future__ import annotations

from typing import Any

from .blueprints import PipelineBlueprint, find_blueprint
from .errors import PluginError


def _hub(name: str) -> str:
    found = find_blueprint(name)
    if not isinstance(found, PipelineBlueprint):
        raise PluginError(f"The blueprint '{name}' is a reward's, not a pipeline's.")
    return found.hub


def published_reference(blueprint: str, **options: Any) -> Any:
    """The reference whose weights a blueprint names, from the hub's cache or the hub.

    Raises:
        RequestError: the weights are not here and cannot be fetched; the message says how to.
    """
    from .diffusers_reference import DiffusersReference

    return DiffusersReference.load(_hub(blueprint), **options)


def published_generator(blueprint: str, **options: Any) -> Any:
    """The pipeline's network as a generator, read out at `readout`; see `published_reference`."""
    from .diffusers_generator import DiffusersGenerator

    return DiffusersGenerator.load(_hub(blueprint), **options)
