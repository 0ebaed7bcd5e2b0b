"""What somebody should know of a reward before using it, read from its class; neither weights nor a server are needed.

A reward's class declares it in attributes (`dipp_toolkit.protocols.DescribedReward`), the registration adds the
licence of the weights where the class has none, and `dipp reward show` and docs/reference/rewards.md show the same.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields, replace
from typing import Any

from ..errors import DippError
from ..registry import Entry, get_registry
from ..utils.assignments import is_isolated_name, is_remote_name, split_client
from ..utils.imports import is_python_name, load_python_name
from ..utils.licences import Origin
from .fitted_folders import FITTED, fitted_folder
from .isolated.environments import ISOLATED, Environment, find_registered, registered
from .loading import FunctionReward
from .remote.proxy import ProxyReward

NEEDED = ("range", "licence", "source", "blind_to")
"""Facts that every reward of this project declares."""

EXAMPLES: dict[str, type] = {"./file.py:function": FunctionReward, "http://host:8700/NAME": ProxyReward}
"""Kinds of rewards that no plugin registers, as they are typed."""


@dataclass(frozen=True, kw_only=True)
class RewardFacts:
    """Facts of one reward, or of one kind; a text is empty where nobody says.

    Attributes:
        name: as `--reward` takes it.
        range: what scores there are.
        licence: of the weights.
        source: the paper, and where the weights are published.
        differentiable: whether a gradient reaches the image; None where it shows when the reward is used.
        gradient: through what it does, in words.
        reads_prompts: whether the prompt matters.
        blind_to: what it cannot see, and what it is fooled by.
        asks: who makes the scores where that is not a network or a formula of its own.
    """

    name: str
    range: str = ""
    licence: str = ""
    source: str = ""
    differentiable: bool | None = None
    gradient: str = ""
    reads_prompts: bool = True
    blind_to: str = ""
    asks: str = ""

    @property
    def missing(self) -> list[str]:
        """Those of `NEEDED` that nobody says."""
        return [name for name in NEEDED if not getattr(self, name)]

    @property
    def gradient_text(self) -> str:
        """Whether it has a gradient, and through what."""
        if self.differentiable is False:
            return "no, a black box"
        start = "yes" if self.differentiable else "it depends"
        return f"{start}: {self.gradient}" if self.gradient else start

    def as_dict(self) -> dict[str, Any]:
        """All of it, as `--json` prints it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def facts_of(name: str) -> RewardFacts:
    """Facts of a reward by any name that `--reward` takes; a function's and a server's are those of their kind.

    Args:
        name: such as `hps`, `hps@isolated`, `judge:http://host:8000/v1`, `./file.py:function`. A file is imported.

    Raises:
        RequestError: there is no registered reward or no file of this name.
    """
    client, _ = split_client(name)
    if client:
        return _of_entry(get_registry().find("reward", client), name)
    if is_remote_name(name):
        return _declared(name, ProxyReward)
    if is_isolated_name(name):
        return _of_isolated(name)
    if fitted_folder(name) is not None:
        return _of_entry(get_registry().find("reward", FITTED), name)
    if is_python_name(name):
        return _of_python(name)
    return _of_entry(get_registry().find("reward", name), name)


def all_facts() -> list[RewardFacts]:
    """Facts of every registered reward, of every one in an environment of its own, and of the other kinds."""
    isolated = [_of_environment(f"{it.reward}@{ISOLATED}", it) for it in registered().values() if it.reward]
    others = [_declared(example, kind) for example, kind in EXAMPLES.items()]
    return [*(_of_entry(entry, name) for name, entry in get_registry().entries["reward"].items()), *isolated, *others]


def _of_python(name: str) -> RewardFacts:
    named = load_python_name(name, "reward")
    if inspect.isclass(named):
        return _declared(name, named)
    own = _of_type(bool, named, "differentiable", None)  # as `FunctionReward` reads it
    return replace(_declared(name, FunctionReward), differentiable=own)


def _of_isolated(name: str) -> RewardFacts:
    inner, _, environment = name.rpartition("@")
    found = find_registered(inner if environment == ISOLATED else environment)
    if found is not None and inner in (found.reward, found.name):
        return _of_environment(name, found)
    return replace(facts_of(inner), name=name)


def _of_environment(name: str, environment: Environment) -> RewardFacts:
    """Those of the registered reward, whose model it is, unless the environment has its own."""
    entries = get_registry().entries
    if environment.described is None and environment.reward in entries["reward"]:
        return _of_entry(entries["reward"][environment.reward], name)
    entry = entries["environment"].get(environment.name)
    return _declared(name, environment.described, None if entry is None else entry.origin)


def _of_entry(entry: Entry, name: str) -> RewardFacts:
    try:
        kind = entry.description
    except DippError:  # a package is missing: what the registration says is all there is
        kind = None
    return _declared(name, kind, entry.origin)


def _declared(name: str, kind: Any, origin: Origin | None = None) -> RewardFacts:
    """The attributes of a class, and where it has no licence or source what the registration says.

    Anybody's class may have attributes of these names that mean something else; what is not of the right type is left.
    """
    texts = {
        text: _of_type(str, kind, text, "") for text in ("range", "licence", "source", "gradient", "blind_to", "asks")
    }
    if origin is not None:
        texts["licence"] = texts["licence"] or origin.licence.text
        texts["source"] = texts["source"] or origin.page
        if origin.licence.non_commercial and "commercial" not in texts["licence"]:
            texts["licence"] += " (not for commercial use)"
    differentiable = _of_type(bool, kind, "differentiable", None)
    return RewardFacts(
        name=name, differentiable=differentiable, reads_prompts=_of_type(bool, kind, "reads_prompts", True), **texts
    )


def _of_type(wanted: type, kind: Any, name: str, otherwise: Any) -> Any:
    value = getattr(kind, name, otherwise)
    return value if isinstance(value, wanted) else otherwise
