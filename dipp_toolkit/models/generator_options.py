"""What settings ask of a generator as it is loaded: the same names in a run, in `dipp generate` and in a bench."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..config import TrainConfig, make_config
from ..errors import RequestError
from ..registry import Entry, get_registry
from ..utils.messages import unknown_name
from .published import PublishedGenerator, PublishedReference

GUIDANCE = "guidance_embedding"
OPTIONS = ("readout", "input_scale", "weights", "lora", GUIDANCE)
"""Settings that `load_generator` is given."""
READ_OUT = ("readout", "input_scale")
"""Those that say where the network is read and of what: with a published reference's name, as its plugin recommends."""
FROM_ELSEWHERE = ("weights", "lora")
"""Those that bring weights, so that a published reference is a generator's pipeline with them."""


def generator_options(config: TrainConfig) -> dict[str, Any]:
    """What the settings ask of the generator as it is loaded."""
    options = {name: value for name in OPTIONS if (value := getattr(config, name)) not in (None, ())}
    options.pop(GUIDANCE, None)
    return options | guidance_option(config, "generator")


def guidance_option(config: TrainConfig, role: Literal["generator", "reference"]) -> dict[str, float]:
    """The setting `guidance_embedding` as an option of a generator or a reference; empty where it is not for this one.

    Of two networks one alone may take guidance as an input, as FLUX.1-dev's does and schnell's does not. Where neither
    does, both are given it, and loading them says that it has no effect.
    """
    value, names = config.guidance_embedding, {"generator": config.generator, "reference": config.reference}
    if value is None:
        return {}
    if config.generator is None and config.reference is not None and role == "generator":
        return {}  # it starts as the reference's network, and is told what that is told
    other = names["reference" if role == "generator" else "generator"]
    own = names[role]
    if own is None or other is None or _may_take_guidance(role, own):
        return {GUIDANCE: value}
    return {} if _may_take_guidance("reference" if role == "generator" else "generator", other) else {GUIDANCE: value}


def _may_take_guidance(role: str, name: str) -> bool:
    """Whether a network may take guidance as an input; what nobody can know before it is fetched may."""
    from .files.folders import family_of
    from .files.named_folders import configured_folder, is_pipeline_name
    from .guidance_embedding import told_guidance

    if not is_pipeline_name(role, name):
        return False
    folder = configured_folder(role, name)
    return folder is None or told_guidance(family_of(folder)) is not None


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
