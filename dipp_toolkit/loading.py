"""From names to objects: what scripts and the command line use alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from .contained import is_there, user_path
from .errors import DippError, PluginError, RequestError
from .generator_options import READ_OUT, pipeline_of_reference
from .known_names import DIFFUSERS, PROMPT_FILES, looks_like_path
from .naming import shown, unknown_name
from .prompt_files import PromptList, read_prompt_file
from .prompt_subsets import PARTS, part_of, split_name, whole_number
from .published import PublishedReference
from .python_files import check_call, check_parts, find_in_python, is_python_name, load_python_name, make_from_python
from .raised import raised
from .registry import check_options, get_registry
from .rewards.inputs import as_scores
from .rewards.names import is_isolated_name, is_remote_name
from .roles import CostMetric, Generator, Images, Metric, Prompt, PromptSet, Reference, Reward
from .saved_generators import load_saved, saved_generator, split_saved

if TYPE_CHECKING:
    from .prompt_encoder import PromptEncoder

GENERATOR = ("network", "latent_shape", "generate", "save_pretrained")
REFERENCE = ("denoiser", "latent_shape", "encode", "null", "decode", "sample", "to")
"""What an object of the role has."""


@contextmanager
def _loading(kind: str, name: str) -> Iterator[None]:
    """Whatever a stranger's files or a user's code raise while they are loaded becomes a sentence.

    Raises:
        RequestError: in the place of anything that is no sentence already.
    """
    try:
        yield
    except DippError:
        raise
    except Exception as error:
        raise RequestError(f"The {kind} '{shown(name)}' cannot be loaded: {raised(error)}.") from error


def load_reference(name_or_path: str, **options: Any) -> Reference:
    """A reference by registered name, `file.py:Name`, `diffusers:<folder or hub id>`, pipeline or run folder, hub id.

    Raises:
        RequestError: the name is unknown or the folder cannot be used.
    """
    with _loading("reference", name_or_path):
        if name_or_path in get_registry().entries["reference"]:
            return cast(Reference, get_registry().find("reference", name_or_path).build(**options))
        if is_python_name(name_or_path):
            made = make_from_python(name_or_path, "reference", options)
            return cast(Reference, check_parts(made, name_or_path, "reference", REFERENCE))
        if name_or_path.startswith(DIFFUSERS) or looks_like_path(name_or_path):
            from .diffusers_reference import DiffusersReference

            return DiffusersReference.load(name_or_path.removeprefix(DIFFUSERS), **options)
    raise get_registry().unknown(name_or_path, "reference")


def load_prompt_encoder(name_or_path: str, dtype: torch.dtype = torch.float32) -> PromptEncoder:
    """The text encoders of a reference, without its other networks where that can be.

    Args:
        name_or_path: as for `load_reference`.
        dtype: of the encoders' weights.

    Raises:
        RequestError: the name is unknown, the folder cannot be used, or the reference is no diffusers pipeline.
    """
    from .blueprints import PipelineBlueprint
    from .folders import family_of, resolve_folder
    from .prompt_encoder import PromptEncoder

    registry = get_registry()
    if name_or_path in registry.entries["reference"]:
        blueprint = registry.entries["blueprint"].get(name_or_path)
        found = blueprint.build() if blueprint is not None else None
        if isinstance(found, PipelineBlueprint) and found.hub not in registry.entries["reference"]:
            folder = resolve_folder(found.hub)
            return PromptEncoder(folder, family_of(folder), dtype)
        encoder = getattr(load_reference(name_or_path), "encoder", None)
        if not isinstance(encoder, PromptEncoder):
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
        RequestError: the name is unknown, the folder cannot be used, or what was made is no generator.
    """
    with _loading("generator", name_or_path):
        pipeline = pipeline_of_reference(name_or_path, options)
        if pipeline is not None:
            from .diffusers_generator import DiffusersGenerator

            read = {name: pipeline.defaults[name] for name in READ_OUT if name in pipeline.defaults}  # as a run does
            return DiffusersGenerator.load(cast(PublishedReference, pipeline.factory).pipeline, **(read | options))
        if name_or_path in get_registry().entries["generator"]:
            return _generator(get_registry().find("generator", name_or_path).build(**options), name_or_path)
        saved = saved_generator(name_or_path)
        if saved is not None:
            return _generator(load_saved(saved, split_saved(name_or_path)[1] is not None, options), name_or_path)
        if is_python_name(name_or_path):
            return _generator(make_from_python(name_or_path, "generator", options), name_or_path)
        if name_or_path.startswith(DIFFUSERS) or looks_like_path(name_or_path):
            from .diffusers_generator import DiffusersGenerator

            return DiffusersGenerator.load(name_or_path.removeprefix(DIFFUSERS), **options)
    raise get_registry().unknown(name_or_path, "generator")


def _generator(made: Any, name: str) -> Generator:
    """Refused now is what would fail after the training: a part that is missing."""
    check_parts(made, name, "generator", GENERATOR)
    check_call(made.save_pretrained, ("folder", "assistant"), f"save_pretrained of the generator '{name}'")
    return cast(Generator, made)


@dataclass
class FunctionReward:
    """A plain function of images and prompts as a reward; it may return a tensor, an array or a list of numbers.

    Attributes:
        differentiable: what the function says in an attribute of this name; None where it says nothing, and then the
            first scores show it.
    """

    name: str
    function: Callable[[Tensor, Sequence[str]], Any]

    @property
    def differentiable(self) -> bool | None:
        return getattr(self.function, "differentiable", None)

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        # Whether they are finite is looked at by those who use them, as of any reward.
        return as_scores(self.name, self.function(images, prompts), len(images), images.device, finite=False)


def load_reward(name: str, **options: Any) -> Reward:
    """A reward by registered name, `file.py:function` or `module:attribute`.

    `<any of these>@<environment>` lives in an environment of its own on this machine, and an address behind HTTP.

    A class, or a function whose parameters are not `(images, prompts)` but options, is called with `options` first;
    anything else is the reward itself.

    Raises:
        RequestError: the name is unknown, the file cannot be used, or the signature does not fit.
    """
    with _loading("reward", name):
        return find_reward(name, **options)()


def find_reward(name: str, **options: Any) -> Callable[[], Reward]:
    """What makes a reward, once all is checked that needs neither its weights nor its server; see `load_reward`.

    Raises:
        RequestError: the name is unknown, the file or the address cannot be used, a package or the environment is not
            installed, or an option is none of the reward's.
    """
    with _loading("reward", name):
        if is_remote_name(name):
            from .rewards.remote import load_remote
            from .rewards.remote_address import parse_addresses

            parse_addresses(name)
            check_options(load_remote, options, f"reward '{name}'")
            return partial(load_remote, name, **options)
        if is_isolated_name(name):
            from .rewards.isolated import find_isolated

            return find_isolated(name, **options)
        if not is_python_name(name):
            return partial(get_registry().find("reward", name).find_factory(options), **options)
        found = load_python_name(name, "reward")
        if inspect.isclass(found):
            check_options(found, options, f"reward '{name}'")
        elif options:
            raise RequestError(
                f"The reward '{name}' is a function and takes no options; make it a class to give it some."
            )
        else:
            check_call(found, ("images", "prompts"), f"reward '{name}'")
        return partial(_reward_of, name, found, options)


def _reward_of(name: str, found: Any, options: dict[str, Any]) -> Reward:
    if inspect.isclass(found):
        found = found(**options)
        check_call(found, ("images", "prompts"), f"reward '{name}'")
    if isinstance(found, Reward):
        return found
    return FunctionReward(name, found)


def load_metric(name: str, **options: Any) -> Metric | CostMetric:
    """A metric by registered name, `file.py:Name` or `module:Name`: of images, or of what making them costs.

    A class, or a function that makes the metric, is called with `options`; anything else is the metric itself.

    Raises:
        RequestError: the name is unknown, the file cannot be used, an option is none of the metric's, or what was found
            is no metric.
    """
    with _loading("metric", name):
        return find_metric(name, **options)()


def find_metric(name: str, **options: Any) -> Callable[[], Metric | CostMetric]:
    """What makes a metric, once all is checked that does not need its weights or images; see `load_metric`.

    Raises:
        RequestError: the name is unknown, the file cannot be used, a package is not installed, or an option is none of
            the metric's.
    """
    with _loading("metric", name):
        if not is_python_name(name):
            return partial(get_registry().find("metric", name).find_factory(options), **options)
        make = find_in_python(name, "metric", options)
        return lambda: _metric_of(name, make())


def _metric_of(name: str, found: Any) -> Metric | CostMetric:
    if isinstance(found, Metric | CostMetric):
        return found
    raise RequestError(
        f"The metric '{name}' is a {type(found).__name__} without what a metric has: `better` with either `features` "
        "and `values`, or `costs`."
    )


def load_prompts(
    name_or_path: str, *, category: str | None = None, count: int | None = None, seed: int = 0, **options: Any
) -> PromptSet:
    """A prompt set by registered name, from a file in any published format, or `file.py:Name`.

    `Name` is a `PromptSet`, a list of texts, or a class or function that makes one.

    Everything may also stand in the name: `"parti?category=Animals&count=100&seed=1"`.

    Args:
        name_or_path: a registered name, or a file's path.
        category: only the prompts of these categories, commas between them.
        count: only a seeded sample of so many.
        seed: of the sample.
        options: of the prompt set's factory, such as `path`, a local copy of a published one.

    Raises:
        RequestError: the name is unknown, the file is missing, empty or not of its ending's format, or the part that is
            asked for is none of it.
    """
    # A file whose name holds a question mark is still found by it.
    is_file = is_there(name_or_path) and user_path(name_or_path).is_file()
    name, asked = (name_or_path, {}) if is_file else split_name(name_or_path)
    category = asked.pop("category", category)
    wanted = asked.pop("count", count)
    count = None if wanted is None else whole_number("count", wanted, 1)
    seed = whole_number("seed", asked.pop("seed", seed), 0)
    options = {**options, **asked}
    known = get_registry().entries["prompts"]
    if name in known:
        with _loading("prompt set", name):
            return part_of(cast(PromptSet, known[name].build(**options)), category, count, seed)
    if is_python_name(name):
        with _loading("prompt set", name):
            return part_of(_own_prompts(name, options), category, count, seed)
    if looks_like_path(name) or Path(name).suffix.lower() in PROMPT_FILES:
        if options:
            raise RequestError(unknown_name("part of a prompt file", next(iter(options)), PARTS))
        return part_of(read_prompt_file(user_path(name)), category, count, seed)
    raise get_registry().unknown(name, "prompts")


def _own_prompts(name: str, options: dict[str, Any]) -> PromptSet:
    made = make_from_python(name, "prompt set", options)
    rows: Any = made if isinstance(made, list | tuple) else getattr(made, "prompts", None)
    prompts = [_numbered(row, number) for number, row in enumerate(rows if isinstance(rows, Sequence) else (), 1)]
    if not prompts or not all(isinstance(one.text, str) and one.text.strip() for one in prompts):
        raise PluginError(
            f"The prompt set '{name}' is a {type(made).__name__}; expected a list of texts, none of them empty, or an "
            "object with a name and such a list as its prompts."
        )
    return PromptList(str(getattr(made, "name", name.rpartition(":")[2])), prompts)


def _numbered(row: Any, number: int) -> Prompt:
    return row if isinstance(row, Prompt) else Prompt(row, str(number))


__all__ = [
    "FunctionReward",
    "PromptList",
    "load_generator",
    "load_metric",
    "load_prompts",
    "load_reference",
    "load_reward",
]
