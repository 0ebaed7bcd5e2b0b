"""From names to references, generators and text encoders: what scripts and the command line use alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from ..errors import RequestError
from ..protocols import Assistant, Generator, Reference
from ..registry import get_registry
from ..utils.exception_text import loading
from ..utils.imports import check_call, check_parts, is_python_name, load_python_name, make_from_python
from ..utils.paths import looks_like_path
from .files.saved_generators import DIFFUSERS, load_saved, saved_generator, split_saved
from .generator_options import READ_OUT, pipeline_of_reference
from .published import PublishedReference

if TYPE_CHECKING:
    from .text_encoders import PromptEncoder

GENERATOR = ("network", "latent_shape", "generate", "save_pretrained")
REFERENCE = ("denoiser", "latent_shape", "encode", "null", "decode", "sample", "to")
ASSISTANT = ("predict_x0", "update", "state_dict", "load_state_dict")
"""What an object of the role has."""


def load_reference(name_or_path: str, **options: Any) -> Reference:
    """A reference by registered name, `file.py:Name`, `diffusers:<folder or hub id>`, pipeline or run folder, hub id.

    Raises:
        RequestError: the name is unknown or the folder cannot be used.
    """
    with loading("reference", name_or_path):
        if name_or_path in get_registry().entries["reference"]:
            return cast(Reference, get_registry().find("reference", name_or_path).build(**options))
        if is_python_name(name_or_path):
            made = make_from_python(name_or_path, "reference", options)
            return cast(Reference, check_parts(made, name_or_path, "reference", REFERENCE))
        if name_or_path.startswith(DIFFUSERS) or looks_like_path(name_or_path):
            from .reference import DiffusersReference

            return DiffusersReference.load(name_or_path.removeprefix(DIFFUSERS), **options)
    raise get_registry().unknown(name_or_path, "reference")


def load_prompt_encoder(name_or_path: str, dtype: torch.dtype = torch.float32) -> PromptEncoder:
    """The text encoders of a reference, without its other networks where that can be.

    Args:
        name_or_path: as for `load_reference`.
        dtype: of the encoders' weights.

    Raises:
        RequestError: the name is unknown, the folder cannot be used, or the reference is not a diffusers pipeline.
    """
    from .blueprints import PipelineBlueprint
    from .files.folders import family_of, resolve_folder
    from .text_encoders import PromptEncoder, prompt_encoder

    registry = get_registry()
    if name_or_path in registry.entries["reference"]:
        blueprint = registry.entries["blueprint"].get(name_or_path)
        pipeline = blueprint.build() if blueprint is not None else None
        if isinstance(pipeline, PipelineBlueprint) and pipeline.hub not in registry.entries["reference"]:
            folder = resolve_folder(pipeline.hub)
            return PromptEncoder(folder, family_of(folder), dtype)
        encoder = prompt_encoder(load_reference(name_or_path))
        if encoder is None:
            raise RequestError(f"The reference '{name_or_path}' has no text encoders of a diffusers pipeline.")
        return encoder
    if name_or_path.startswith(DIFFUSERS) or looks_like_path(name_or_path):
        folder = resolve_folder(name_or_path.removeprefix(DIFFUSERS))
        return PromptEncoder(folder, family_of(folder), dtype)
    raise registry.unknown(name_or_path, "reference")


def load_generator(name_or_path: str, **options: Any) -> Generator:
    """A generator by registered name, `file.py:Name`, `diffusers:<folder or hub id>`, pipeline or run folder, hub id.

    `NAME@folder` is one of somebody's own as a training saved it; see `saved_generators`. A published reference's name
    is its pipeline, where the options bring the generator's weights; see `generator_options`.

    Raises:
        RequestError: the name is unknown, the folder cannot be used, or the object is not a generator.
    """
    with loading("generator", name_or_path):
        pipeline = pipeline_of_reference(name_or_path, options)
        if pipeline is not None:
            from .generator import DiffusersGenerator

            read = {name: pipeline.defaults[name] for name in READ_OUT if name in pipeline.defaults}  # as a run does
            return DiffusersGenerator.load(cast(PublishedReference, pipeline.factory).source, **(read | options))
        if name_or_path in get_registry().entries["generator"]:
            return _generator(get_registry().find("generator", name_or_path).build(**options), name_or_path)
        saved = saved_generator(name_or_path)
        if saved is not None:
            return _generator(load_saved(saved, split_saved(name_or_path)[1] is not None, options), name_or_path)
        if is_python_name(name_or_path):
            return _generator(make_from_python(name_or_path, "generator", options), name_or_path)
        if name_or_path.startswith(DIFFUSERS) or looks_like_path(name_or_path):
            from .generator import DiffusersGenerator

            return DiffusersGenerator.load(name_or_path.removeprefix(DIFFUSERS), **options)
    raise get_registry().unknown(name_or_path, "generator")


def load_assistant(name: str, generator: Generator, reference: Reference) -> Assistant:
    """A score model of the generator's samples, of somebody's own: `file.py:Name` or `module:Name`.

    Args:
        name: of a class or function that is given the generator and the reference.
        generator: whose samples.
        reference: the run's.

    Raises:
        PluginError: the file cannot be used, or what it makes is no assistant.
        RequestError: the function refuses this generator.
    """
    with loading("assistant", name):
        factory = load_python_name(name, "assistant")
        check_call(factory, ("generator", "reference"), f"assistant '{name}'")
        return cast(Assistant, check_parts(factory(generator, reference), name, "assistant", ASSISTANT))


def _generator(made: Any, name: str) -> Generator:
    """Refused now is what would fail after the training: a part that is missing."""
    check_parts(made, name, "generator", GENERATOR)
    check_call(made.save_pretrained, ("folder", "assistant"), f"save_pretrained of the generator '{name}'")
    return cast(Generator, made)
