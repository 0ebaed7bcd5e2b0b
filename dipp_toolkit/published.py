"""Published pipelines by name: the factories and settings that their plugins register. Importing it loads nothing."""

from __future__ import annotations

from typing import Any

SETTINGS: dict[str, Any] = {
    "guidance": 4.5,
    "reference_guidance": 4.5,
    "mode": "lora",
    "batch_size": 4,
    "eval_count": 16,
}
"""Starting points for networks of this size, not results of a search."""


def published_reference(blueprint: str, **options: Any) -> Any:
    """The reference whose weights a blueprint names, from the hub's cache or the hub.

    Raises:
        RequestError: the weights are not here and cannot be fetched; the message says how to.
    """
    from .blueprints import find_pipeline
    from .diffusers_reference import DiffusersReference

    return DiffusersReference.load(find_pipeline(blueprint).hub, **options)


def published_generator(blueprint: str, **options: Any) -> Any:
    """The pipeline's network as a generator, read out at `readout`; see `published_reference`."""
    from .blueprints import find_pipeline
    from .diffusers_generator import DiffusersGenerator

    return DiffusersGenerator.load(find_pipeline(blueprint).hub, **options)
