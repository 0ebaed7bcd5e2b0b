"""The settings that a run was begun with, as its `config.yaml` holds them, whichever version wrote it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ...config import TrainConfig, make_config
from ...errors import DippError
from ...models.files.saved_generators import saved_generator, split_saved
from ...registry import get_registry
from ...utils.assignments import read_yaml
from ...utils.imports import is_python_name


def read_begun_settings(path: Path) -> dict[str, Any]:
    """The settings in a run's own `config.yaml`, completed so that resuming with them does what the run did.

    A version without `input_scale` gave every network z itself, where a name or a folder may mean sigma z now. One
    without `parts` trained with the reference's text encoders and autoencoder, whatever the generator's were.

    Raises:
        RequestError: the file cannot be read as settings.
    """
    values = read_yaml(path)
    if "input_scale" not in values and _takes_input_scale(values.get("generator")):
        values["input_scale"] = "unit"
    if values.get("generator") is not None:
        values.setdefault("parts", "reference")
    values.setdefault("compile", "off")
    return values


def settled(folder: Path, names: Collection[str]) -> dict[str, Any]:
    """Values of some settings that a run was begun with, which today's recommendations must not replace on resume.

    Args:
        folder: the run's; without a `config.yaml` in it, nothing is settled.
        names: of the settings.

    Raises:
        RequestError: its `config.yaml` cannot be read as settings.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        return {}
    saved = make_config(read_begun_settings(path))
    return {name: getattr(saved, name) for name in names}


def as_begun(config: TrainConfig, saved: TrainConfig) -> TrainConfig:
    """The settings of a run that resumes: what is not given now keeps the value that was settled then.

    Args:
        config: the settings asked for now.
        saved: those that the run was begun with.
    """
    config = precision_as_begun(config, saved)
    if config.compile == "auto":
        config = config.model_copy(update={"compile": saved.compile})
    if "parts" not in config.model_fields_set:
        config = config.model_copy(update={"parts": saved.parts})
    return config if config.input_scale else config.model_copy(update={"input_scale": saved.input_scale})


def _takes_input_scale(generator: Any) -> bool:
    """Whether a generator takes an `input_scale`: the reference's network, a folder, or a plugin's that declares it."""
    if generator is None:
        return True
    if not isinstance(generator, str):
        return False
    entry = get_registry().entries["generator"].get(generator)
    try:
        if entry is not None:
            return bool(entry.find_factory(("input_scale",)))
        own = is_python_name(generator) or split_saved(generator)[1] is not None
        return not own and saved_generator(generator) is None
    except DippError:  # it cannot be loaded at all; loading it reports why
        return False


def precision_as_begun(config: TrainConfig, saved: TrainConfig) -> TrainConfig:
    """The settings of a run that goes on: where no precision is named, the one it was begun with, on any machine.

    Args:
        config: the settings asked for now.
        saved: those that the run was begun with.
    """
    return config.model_copy(update={"precision": saved.precision}) if config.precision == "auto" else config
