"""What settings ask of a generator as it is loaded: the same names in a run, in `dipp generate` and in a bench."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import TrainConfig, make_config
from ..errors import RequestError
from ..registry import Entry, get_registry
from ..utils.messages import unknown_name
from .published import PublishedGenerator, PublishedReference

OPTIONS = ("readout", "input_scale", "weights", "lora")
"""Settings that `load_generator` is given."""
READ_OUT = ("readout", "input_scale")
"""Those that say where the network is read and of what: with a published reference's name, as its plugin recommends."""
FROM_ELSEWHERE = ("weights", "lora")
"""Those that bring weights, so that a published reference is a generator's pipeline with them."""


def generator_options(config: TrainConfig) -> dict[str, Any]:
    """What the settings ask of the generator as it is loaded."""
    return {name: value for name in OPTIONS if (value := getattr(config, name)) not in (None, ())}


def starts_elsewhere(config: TrainConfig) -> bool:
    """Whether the generator's network starts from other weights than its pipeline's, by a setting or its name."""
    entry = get_registry().entries["generator"].get(config.generator or "")
    options = generator_options(config)
    if entry is not None and isinstance(entry.factory, PublishedGenerator):
        options = entry.factory.options(options)
    return any(options.get(name) for name in FROM_ELSEWHERE)


def parsed_options(values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The same from single values, as they were typed.

    Args:
        values: by name.
        what: they are given to, for the message.

    Raises:
        RequestError: a name is none of `OPTIONS`, or a value is out of range.
    """
    for name in values:
        if name not in OPTIONS:
            raise RequestError(f"{what} takes no such option. {unknown_name('option', name, OPTIONS)}")
    return generator_options(make_config(values))


def pipeline_of_reference(name: str, options: Mapping[str, Any]) -> Entry | None:
    """The entry of a published reference whose pipeline is a generator's, with weights that options bring.

    Args:
        name: as somebody named the generator.
        options: of the generator.

    Returns:
        None where a generator has this name, or the options bring no weights: a reference's own network is no one-step
        generator.
    """
    registry = get_registry()
    entry = registry.entries["reference"].get(name)
    if name in registry.entries["generator"] or not any(options.get(option) for option in FROM_ELSEWHERE):
        return None
    return entry if entry is not None and isinstance(entry.factory, PublishedReference) else None
