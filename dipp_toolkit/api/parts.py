"""Names or objects: whatever somebody gives for a part of a run becomes a name, and its object is lent to the run."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import PluginError, RequestError
from ..models.loading import GENERATOR, REFERENCE
from ..prompts.loading import load_prompts
from ..prompts.subsets import split_name
from ..protocols import PromptSet, Reward
from ..registry import get_registry
from ..rewards.loading import FunctionReward
from ..training.run_result import RunResult
from ..training.setup.given_parts import GivenPart, lent
from ..utils.assignments import parse_rewards
from ..utils.exception_text import raised
from ..utils.imports import check_call, check_parts
from ..utils.messages import quoted
from .pipelines import is_pipeline, saved_pipeline

PROMPTS = {"prompts": "given-prompts", "eval_prompts": "given-eval-prompts"}
"""What a run calls prompts that have no name of their own."""


@dataclass(frozen=True)
class OfImages:
    """A function of images alone as one of images and prompts."""

    function: Callable[[Tensor], Any]

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Any:
        return self.function(images)


@dataclass
class GivenParts:
    """The objects among the parts of one run or one call.

    Attributes:
        parts: in the order in which they were given.
    """

    parts: list[GivenPart] = field(default_factory=list)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Inside this context the objects have their names."""
        with lent(self.parts):
            yield

    def generator(self, given: Any) -> str:
        """A name for a generator: a name or path, a diffusers pipeline, a finished run, or an object with what a
        `Generator` has.

        Raises:
            RequestError: it is none of these.
        """
        return self._pipeline("generator", given, GENERATOR, "own_generator(network, latent_shape=...)")

    def reference(self, given: Any) -> str:
        """A name for a reference: a name or path, a diffusers pipeline, or an object with a `Reference`'s attributes.

        Raises:
            RequestError: it is none of these.
        """
        return self._pipeline("reference", given, REFERENCE, "own_reference(network, schedule, ...)")

    def _pipeline(self, kind: str, given: Any, attributes: Sequence[str], wrapping: str) -> str:
        if isinstance(given, str | Path):
            return str(given)
        if isinstance(given, RunResult):
            return str(given.final)
        if is_pipeline(given):
            return str(saved_pipeline(given))
        if inspect.isclass(given):
            given = _made(kind, given)
        if isinstance(given, nn.Module) and not all(hasattr(given, attribute) for attribute in attributes):
            raise RequestError(
                f"The {kind} is a {type(given).__name__}, a network of its own; wrap it first: {kind}={wrapping}."
            )
        name = self._free(kind, _words(type(given).__name__) or kind)
        check_parts(given, name, kind, attributes)
        return self._add(GivenPart(kind, name, given, copied=True))

    def rewards(self, given: Any) -> dict[str, float]:
        """Weights by name of rewards: a text as `--reward` takes it, a reward, a list of them, weights or rewards by
        name, or weights by reward.

        Raises:
            RequestError: something of it is no reward or no weight.
        """
        if isinstance(given, str):
            return parse_rewards(given)
        if isinstance(given, Mapping):
            pairs: Iterable[tuple[Any, Any]] = given.items()
        else:
            pairs = ((one, 1.0) for one in (given if isinstance(given, list | tuple) else [given]))
        weights: dict[str, float] = {}
        for key, value in pairs:
            for name, weight in self._weighted(key, value).items():
                if name in weights:
                    raise RequestError(f"The reward '{name}' is given twice; give it one weight.")
                weights[name] = weight
        return weights

    def _weighted(self, key: Any, value: Any) -> dict[str, float]:
        if isinstance(value, tuple) and len(value) == 2:  # name: (reward, weight)
            return {self.reward(value[0], key): _number(key, value[1])}
        if isinstance(key, str) and callable(value):
            return {self.reward(value, key): 1.0}
        if isinstance(key, str) and "=" in key and value == 1.0:
            return parse_rewards(key)
        return {self.reward(key): _number(key, value)}

    def reward(self, given: Any, name: str = "") -> str:
        """A name for a reward: a name, or anything that can be called with images and prompts.

        Args:
            given: the reward.
            name: what it is to be called; what its code calls it where that is empty.

        Raises:
            RequestError: it cannot be called so, or the name is taken.
        """
        if isinstance(given, str):
            return given
        for part in self.parts:
            inner = getattr(part.thing, "function", part.thing)
            if part.kind == "reward" and given in (part.thing, inner, getattr(inner, "function", None)):
                return part.name
        if inspect.isclass(given):
            given = _made("reward", given)
        if name and name in get_registry().entries["reward"]:
            raise RequestError(f"There is a reward '{name}' already; give yours another name.")
        if not callable(given):
            raise RequestError(
                f"The reward {quoted(given)} is neither a name nor a function; expected a name, or a callable of "
                "(images, prompts) or of (images) alone."
            )
        name = name or self._free("reward", _name_of(given))
        if not _takes(given, 2) and _takes(given, 1):
            given = OfImages(given)
        check_call(given, ("images", "prompts"), f"reward '{name}'")
        reward = given if isinstance(given, Reward) else FunctionReward(name, given)
        return self._add(GivenPart("reward", name, reward))

    def rewards_named(self, given: Any) -> tuple[str, ...]:
        """Names of rewards without weights: a text with commas, a reward, or a list of them.

        Raises:
            RequestError: one cannot be called with images and prompts.
        """
        if isinstance(given, str):
            return tuple(parse_rewards(given))
        if isinstance(given, Mapping):
            return tuple(self.reward(thing, name) for name, thing in given.items())
        return tuple(self.reward(one) for one in (given if isinstance(given, list | tuple) else [given]))

    def by_reward(self, given: Any) -> Any:
        """A mapping whose keys may be rewards, such as floors, by their names; anything else as it is."""
        return {self.reward(key): value for key, value in given.items()} if isinstance(given, Mapping) else given

    def prompts(self, given: Any, setting: str = "prompts") -> str:
        """A name for prompts: a name or path, a list of texts, a `datasets.Dataset`, or a prompt set.

        Args:
            given: the prompts.
            setting: that they are given for, `"prompts"` or `"eval_prompts"`.

        Raises:
            RequestError: they are none of these.
        """
        if isinstance(given, str | Path):
            return str(given)
        prompts = load_prompts(given)
        own = prompts.name if isinstance(given, PromptSet) else ""
        if own and split_name(own)[0] in get_registry().entries["prompts"] and load_prompts(own) == prompts:
            return own
        return self._add(GivenPart("prompts", PROMPTS[setting], prompts))

    def _add(self, part: GivenPart) -> str:
        self.parts.append(part)
        return part.name

    def _free(self, kind: str, name: str) -> str:
        """The name, with a number behind it where it is taken."""
        taken = {*get_registry().entries[kind], *(part.name for part in self.parts if part.kind == kind)}
        number, free = 1, name
        while free in taken:
            number += 1
            free = f"{name}-{number}"
        return free


def _takes(function: Any, count: int) -> bool:
    """Whether a function can be called with so many positional arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def _made(kind: str, given: type) -> Any:
    try:
        return given()
    except Exception as error:
        raise PluginError(
            f"The {kind} {given.__name__} is a class and cannot be made without arguments: {raised(error)}. Give an "
            "object of it."
        ) from error


def _name_of(reward: Any) -> str:
    while isinstance(reward, partial):
        reward = reward.func
    name = getattr(reward, "__name__", None) or getattr(reward, "name", None) or type(reward).__name__
    return _words(str(name)) or "reward"


def _words(name: str) -> str:
    """A name of code as one that people type: `MyReward` and `my_reward` are `my-reward`."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)
    return re.sub(r"[^a-z0-9]+", "-", parted.lower()).strip("-")


def _number(key: Any, value: Any) -> float:
    name = key if isinstance(key, str) else _name_of(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"The weight of the reward '{name}' is {value!r}; expected a number.")
    return float(value)
