"""One component of a pipeline folder at a time: with its weights, or as an empty shell that only knows its shapes."""

from __future__ import annotations

import importlib
import inspect
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..diffusion.scheduler_classes import check_prediction_fits, check_schedule_readable
from ..errors import RequestError, first_line
from ..utils.json_files import read_json
from ..utils.messages import shown
from .family import PipelineFamily
from .files.fetching import hub_id_of
from .files.folders import quiet_loading, read_scheduler_config
from .files.safety import LIBRARIES, check_config, check_pickled, stock_pipeline
from .files.weight_files import PICKLE, check_shards, weights_in, what_is_there
from .start_weights.store import safetensors_place
from .stock_call import stock_call_of


def component_class(folder: Path, name: str) -> type:
    """The class that `model_index.json` gives a component: a network, or the scheduler, of a trusted library.

    Raises:
        RequestError: the pipeline has no such component, or its class is not in the installed library or another kind.
    """
    entry = read_json(folder / "model_index.json").get(name)
    if not (isinstance(entry, list) and len(entry) == 2 and entry[0] and entry[1]):
        raise RequestError(f"The pipeline {folder} has no component '{name}': model_index.json names none.")
    library, class_name = (shown(text) for text in entry)
    if library not in LIBRARIES:
        raise RequestError(
            f"The component '{name}' of {folder} comes from '{library}'; only diffusers and transformers are trusted."
        )
    if name == "scheduler":  # before the import fails for a library that only this class needs
        check_schedule_readable({"_class_name": class_name})
    module: Any = importlib.import_module(library)
    component = getattr(module, class_name, None)
    if component is None:
        raise RequestError(f"The installed {library} has no {class_name}, which the component '{name}' of {folder} is.")
    base = (
        module.SchedulerMixin
        if name == "scheduler"
        else module.ModelMixin
        if library == "diffusers"
        else module.PreTrainedModel
    )
    if not (isinstance(component, type) and issubclass(component, base)):
        raise RequestError(
            f"The component '{name}' of {folder} is of the class {class_name} of {library}, which is not a "
            f"{'scheduler' if name == 'scheduler' else 'network'}."
        )
    return component


def load_component(folder: Path, name: str, place: Path | None = None, dtype: torch.dtype = torch.float32) -> Any:
    """A network of a pipeline folder, by the class `model_index.json` gives it.

    Args:
        folder: the pipeline's folder.
        name: the component's name in `model_index.json`.
        place: folder of its files, the one named after the component where None.
        dtype: of its weights.

    Raises:
        RequestError: its files are missing or are not weights of that class.
    """
    place = place or folder / name
    loader: Any = check_component(folder, name, place)
    # Remote code is never run. Without the argument, transformers would ask the person at the keyboard.
    never: Any = {} if loader.__module__.startswith("diffusers") else {"trust_remote_code": False}
    place = safetensors_place(place)
    weights = weights_in(place)
    variant = None if weights is None else weights.variant
    try:
        with quiet_loading(), torch.random.fork_rng(devices=[]):  # weights are drawn before they are read
            network = loader.from_pretrained(place, torch_dtype=dtype, use_safetensors=True, variant=variant, **never)
            return network.to(dtype)
    except Exception as error:  # the libraries raise OSError, ValueError, KeyError, RuntimeError and their own
        raise RequestError(f"The weights of '{name}' in {place} cannot be loaded: {first_line(error)}") from error


def check_component(folder: Path, name: str, place: Path | None = None) -> type:
    """Refuse a network whose files cannot be loaded, without reading its weights.

    Args:
        folder: the pipeline's folder.
        name: the component's name in `model_index.json`.
        place: folder of its files, the one named after the component where None.

    Returns:
        Its class.

    Raises:
        RequestError: its files are missing, of another kind, or ask for code of their own.
    """
    place = place or folder / name
    loader = component_class(folder, name)
    if not (place / "config.json").is_file():
        raise RequestError(f"The component '{name}' is missing: {place} has no config.json. {_fetch_again(folder)}")
    check_pickled(name, place)
    weights = weights_in(place) or weights_in(place, PICKLE)
    if weights is None:
        problem = (
            f"The weights of '{name}' in {place} cannot be loaded: no set of .safetensors files is whole"
            if any(place.glob("*.safetensors"))
            else f"The weights of '{name}' are missing: {place} has no .safetensors file"
        )
        raise RequestError(f"{problem}; {what_is_there(place)}. {_fetch_again(folder)}")
    check_shards(place, weights)
    check_config(read_json(place / "config.json"), place / "config.json")
    return loader


def _fetch_again(folder: Path) -> str:
    name = hub_id_of(folder)
    return f"Fetch it again with: hf download {name}" if name else "Copy the whole pipeline folder, weights included."


def empty_component(folder: Path, name: str, place: Path | None = None) -> nn.Module:
    """A network without weights, on the meta device: it knows its configuration and shapes, and costs no memory.

    Args:
        folder: the pipeline's folder.
        name: the component's name in `model_index.json`.
        place: folder of its configuration, the one named after the component where None.

    Raises:
        RequestError: its configuration is missing, or none of its class.
    """
    place = place or folder / name
    loader: Any = component_class(folder, name)
    try:
        with quiet_loading(), torch.device("meta"):
            shell: nn.Module = loader.from_config(loader.load_config(place))
    except Exception as error:  # whatever a class makes of a configuration that is not its own
        raise RequestError(f"The configuration of '{name}' in {place} cannot be used: {first_line(error)}.") from error
    return shell


def load_scheduler(folder: Path) -> Any:
    """The pipeline's own scheduler, with what the pipeline's class corrects in its configuration.

    `StableDiffusionPipeline` sets `clip_sample` to false and `steps_offset` to 1 when it is built.

    Raises:
        RequestError: its configuration is missing, or none of its class.
    """
    loader: Any = component_class(folder, "scheduler")
    config = {**read_scheduler_config(folder), "_class_name": loader.__name__}
    check_schedule_readable(config)
    check_prediction_fits(config)
    try:
        with quiet_loading():
            return _as_corrected(folder, loader.from_pretrained(folder / "scheduler"))
    except Exception as error:  # as above
        raise RequestError(
            f"The scheduler {loader.__name__} of {folder} cannot be used: {first_line(error)}."
        ) from error


def _as_corrected(folder: Path, scheduler: Any) -> Any:
    """What the stock pipeline's constructor, given no other component, makes of its scheduler."""
    pipeline = stock_pipeline(read_json(folder / "model_index.json"))
    if pipeline is None:
        return scheduler
    parameters = inspect.signature(pipeline).parameters.values()
    missing = {parameter.name: None for parameter in parameters if parameter.default is parameter.empty}
    plain = {parameter.name: False for parameter in parameters if parameter.name == "requires_safety_checker"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the folder's configuration is outdated
        return pipeline(**{**missing, **plain, "scheduler": scheduler}).scheduler


def heeded_scheduler_config(folder: Path, family: PipelineFamily) -> dict[str, Any]:
    """The configuration of a pipeline's scheduler, as far as the scheduler's and the pipeline's class heed it.

    Raises:
        RequestError: as `load_scheduler`.
    """
    return stock_call_of(family).understood(load_scheduler(folder))
