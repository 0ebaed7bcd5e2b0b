"""From names to rewards: what scripts and the command line use alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import RequestError
from ..protocols import Reward, moved
from ..registry import get_registry
from ..utils.assignments import is_isolated_name, is_remote_name, split_client
from ..utils.exception_text import loading
from ..utils.images import Images
from ..utils.imports import check_call, check_options, is_python_name, load_python_name
from .fitted_folders import FITTED, fitted_folder
from .scores import as_scores


@dataclass
class FunctionReward:
    """A plain function of images and prompts as a reward; it may return a tensor, an array or a list of numbers.

    Attributes:
        differentiable: what the function says in an attribute of this name; None where it says nothing, and then the
            first scores show it.
        samples_per_prompt: as `dipp_toolkit.protocols.GroupReward` has it.
    """

    range: ClassVar = "the function's own"
    licence: ClassVar = "its author's"
    source: ClassVar = "a file or module of yours; docs/guide/writing-a-plugin.md"
    blind_to: ClassVar = "what the function does not look at; `dipp reward check` says what is wrong with it"
    gradient: ClassVar = "where the score is made of the images by torch operations"
    asks: ClassVar = "your function"

    name: str
    function: Callable[[Tensor, Sequence[str]], Any]

    @property
    def differentiable(self) -> bool | None:
        return getattr(self.function, "differentiable", None)

    @property
    def samples_per_prompt(self) -> Any:
        """What the function says in an attribute of this name; 1 where it looks at each image by itself."""
        return getattr(self.function, "samples_per_prompt", 1)

    def to(self, device: torch.device | str) -> FunctionReward:
        """Move what the function holds, where it can be moved, as a network can."""
        moved(self.function, device)
        return self

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        # Whether they are finite is looked at by those who use them, as of any reward.
        return as_scores(self.name, self.function(images, prompts), len(images), images.device, finite=False)


def load_reward(name: str, **options: Any) -> Reward:
    """A reward by registered name, `file.py:function`, `module:attribute`, or the folder of a fitted reward.

    `<any of these>@<environment>` lives in an environment of its own on this machine, and an address behind HTTP.
    `<registered name>:<address>` asks a server that is not one of ours.

    A class, or a function whose parameters are not `(images, prompts)` but options, is called with `options` first;
    anything else is the reward itself.

    Raises:
        RequestError: the name is unknown, the file cannot be used, or the signature does not fit.
    """
    with loading("reward", name):
        return find_reward(name, **options)()


def find_reward(name: str, **options: Any) -> Callable[[], Reward]:
    """What makes a reward, once all is checked that needs neither its weights nor its server; see `load_reward`.

    Raises:
        RequestError: the name is unknown, the file or the address cannot be used, a package or the environment is not
            installed, or an option is not one of the reward's.
    """
    with loading("reward", name):
        client, address = split_client(name)
        if client:
            return _find_client(client, address, options)
        if is_remote_name(name):
            from .remote.address import parse_addresses
            from .remote.client import load_remote

            parse_addresses(name)
            check_options(load_remote, options, f"reward '{name}'")
            return partial(load_remote, name, **options)
        if is_isolated_name(name):
            from .isolated.scorer import find_isolated

            return find_isolated(name, **options)
        folder = fitted_folder(name)
        if folder is not None:
            options = {"folder": str(folder), **options}
            return partial(get_registry().find("reward", FITTED).find_factory(options), **options)
        if not is_python_name(name):
            return partial(get_registry().find("reward", name).find_factory(options), **options)
        attribute = load_python_name(name, "reward")
        if inspect.isclass(attribute):
            check_options(attribute, options, f"reward '{name}'")
        elif options:
            raise RequestError(
                f"The reward '{name}' is a function and takes no options; make it a class to give it some."
            )
        else:
            check_call(attribute, ("images", "prompts"), f"reward '{name}'")
        return partial(_reward_of, name, attribute, options)


def _find_client(client: str, address: str, options: dict[str, Any]) -> Callable[[], Reward]:
    """A registered reward that asks the server at an address.

    Raises:
        RequestError: there is no such reward, or it asks no server.
    """
    factory = get_registry().find("reward", client).find_factory()
    if not isinstance(factory, AsksServer):
        raise RequestError(
            f"The reward '{client}' asks no server, so no address can follow its name; use '{client}' alone."
        )
    return factory.at(address, options)


@runtime_checkable
class AsksServer(Protocol):
    """A class of rewards that ask a server which is not one of ours, such as a language model's."""

    def at(self, address: str, options: Mapping[str, Any]) -> Callable[[], Reward]:
        """What makes the reward, once all is checked that needs no server.

        Args:
            address: as typed after the reward's name and a colon.
            options: of the reward.

        Raises:
            RequestError: the address or an option cannot be used.
        """


@runtime_checkable
class NamesFiles(Protocol):
    """A class of rewards that finds its files without reading them."""

    def find_files(self, **options: Any) -> list[Path]:
        """The files by the reward's options; fetched where they are not here.

        Raises:
            RequestError: one is not there.
        """


def files_of(make: Callable[[], Reward], options: Mapping[str, Any]) -> list[Path] | None:
    """The files that a reward's weights are read from; None where its class does not say.

    Args:
        make: from `find_reward`.
        options: of the reward.

    Raises:
        RequestError: one is not there.
    """
    if not isinstance(make, partial) or not isinstance(make.func, NamesFiles):
        return None
    return make.func.find_files(**{**make.keywords, **options})


def _reward_of(name: str, attribute: Any, options: dict[str, Any]) -> Reward:
    if inspect.isclass(attribute):
        attribute = attribute(**options)
        check_call(attribute, ("images", "prompts"), f"reward '{name}'")
    if isinstance(attribute, Reward):
        return attribute
    return FunctionReward(name, attribute)
