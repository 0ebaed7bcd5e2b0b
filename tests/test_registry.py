"""Plugins: what registers is found by name, what is broken is named and hurts nobody else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dipp_toolkit import hookimpl
from dipp_toolkit.errors import PluginError, RequestError
from dipp_toolkit.registry import KINDS, Registry, discover, get_registry


def plugin(**hooks: Callable[..., Any]) -> ModuleType:
    """A plugin module with these hooks, by their names without the prefix `dipp_`."""
    module = ModuleType("a_plugin")
    for name, function in hooks.items():
        setattr(module, f"dipp_{name}", hookimpl(function))
    return module


def rewards(*names: str, **options: Any) -> ModuleType:
    def register_rewards(register: Any) -> None:
        for name in names:
            register(name, dict, summary=f"the reward {name}", **options)

    return plugin(register_rewards=register_rewards)


def test_registered_names_are_found(registry: Registry) -> None:
    registry.add_plugin("colours", lambda: rewards("blue", "red"))
    entry = registry.find("reward", "blue")
    assert (entry.plugin, entry.summary, entry.kind) == ("colours", "the reward blue", "reward")
    assert [item.name for item in registry] == ["blue", "red"]
    assert not registry.broken


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_hook(registry: Registry, kind: str) -> None:
    def hook(register: Any) -> None:
        register("thing", dict)

    registry.add_plugin("things", lambda: plugin(**{f"register_{kind if kind == 'prompts' else kind + 's'}": hook}))
    assert [(item.kind, item.name) for item in registry] == [(kind, "thing")]


def test_options_reach_the_factory_and_unknown_ones_are_refused(registry: Registry) -> None:
    def register_rewards(register: Any) -> None:
        register("sized", lambda size=1: size)

    registry.add_plugin("one", lambda: plugin(register_rewards=register_rewards))
    entry = registry.find("reward", "sized")
    assert entry.build() == 1
    assert entry.build(size=3) == 3
    with pytest.raises(RequestError, match=r"'sized' takes no such option\. .*'siez'\. Did you mean 'size'"):
        entry.build(siez=3)


def test_a_factory_may_be_a_string(registry: Registry) -> None:
    def register_rewards(register: Any) -> None:
        register("square", "math:sqrt")
        register("no-module", "not_a_module_at_all:thing")
        register("no-attribute", "math:squirt")

    registry.add_plugin("numbers", lambda: plugin(register_rewards=register_rewards))
    assert registry.find("reward", "square").build(4.0) == 2.0
    with pytest.raises(PluginError, match=r"'no-module' of the plugin 'numbers': importing not_a_module_at_all failed"):
        registry.find("reward", "no-module").build()
    with pytest.raises(PluginError, match="math has no 'squirt'"):
        registry.find("reward", "no-attribute").build()


def test_unknown_names_suggest_the_nearest(registry: Registry) -> None:
    with pytest.raises(RequestError, match=r"There is no reward named 'blu'\. No reward is installed\."):
        registry.find("reward", "blu")
    registry.add_plugin("colours", lambda: rewards("blue", "red"))
    with pytest.raises(RequestError, match=r"named 'blu'\. Did you mean 'blue'\? Known: blue, red\."):
        registry.find("reward", "blu")
    with pytest.raises(RequestError, match=r"^There is no prompt set named 'blue'"):
        registry.find("prompts", "blue")


def test_missing_packages_are_named_with_the_remedy(registry: Registry) -> None:
    registry.add_plugin("colours", lambda: rewards("blue", needs=("not_a_package_at_all", "math")))
    entry = registry.find("reward", "blue")
    assert entry.missing == ["not_a_package_at_all"]
    with pytest.raises(PluginError, match=r"needs not_a_package_at_all, .* pip install not_a_package_at_all"):
        entry.build()


def fail_to_import() -> ModuleType:
    raise ImportError("no module named unobtainium")


def half_way() -> ModuleType:
    def register_rewards(register: Any) -> None:
        register("green", dict)
        raise ValueError("ran out of colours")

    return plugin(register_rewards=register_rewards)


def unknown_hook_argument() -> ModuleType:
    def register_rewards(register: Any, colour: str) -> None:
        register(colour, dict)

    return plugin(register_rewards=register_rewards)


def misspelt_hook() -> ModuleType:
    return plugin(register_reward=lambda register: None)


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (fail_to_import, "ImportError: no module named unobtainium"),
        (half_way, "ValueError: ran out of colours"),
        (lambda: rewards("red", "green"), "the reward 'red' is already registered by the plugin 'colours'"),
        (lambda: rewards("green", "green"), "the reward 'green' is already registered by the plugin 'broken'"),
        (unknown_hook_argument, "colour"),
        (misspelt_hook, "dipp_register_reward"),
    ],
    ids=["import", "half-way", "taken name", "same name twice", "argument", "misspelt hook"],
)
def test_a_broken_plugin_is_named_and_leaves_nothing(registry: Registry, load: Callable[[], Any], reason: str) -> None:
    registry.add_plugin("colours", lambda: rewards("blue", "red"))
    registry.add_plugin("broken", load)
    registry.add_plugin("shapes", lambda: rewards("round"))
    assert [item.name for item in registry.broken] == ["broken"]
    assert reason in registry.broken[0].reason
    assert {item.name: item.plugin for item in registry} == {"blue": "colours", "red": "colours", "round": "shapes"}
    assert not registry.manager.has_plugin("broken")


def test_built_in_plugins_come_first_whatever_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def point(name: str, distribution: str) -> EntryPoint:
        monkeypatch.setitem(sys.modules, f"plugin_{name}", rewards("blue"))
        return EntryPoint(name, f"plugin_{name}", "dipp")._for(SimpleNamespace(name=distribution))  # type: ignore[attr-defined]

    registry = discover([point("aaa", "somebody"), point("emoji", "dipp-toolkit")])
    assert registry.find("reward", "blue").plugin == "emoji"
    assert [item.name for item in registry.broken] == ["aaa"]


def test_a_missing_entry_point_module_is_reported() -> None:
    registry = discover([EntryPoint("ghost", "there_is_no_such_module", "dipp")])
    assert [item.name for item in registry.broken] == ["ghost"]
    assert "there_is_no_such_module" in registry.broken[0].reason


def test_events_reach_the_plugins(registry: Registry) -> None:
    seen = []

    def heard(event: Any) -> None:
        seen.append(event)

    registry.add_plugin("listener", lambda: plugin(on_step=heard))
    registry.manager.hook.dipp_on_step(event="an event")
    assert seen == ["an event"]


def test_every_installed_plugin_works() -> None:
    assert get_registry().broken == []
    assert get_registry().find("pipeline", "PixArtAlphaPipeline").plugin == "pixart"


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from dipp_toolkit.registry import get_registry\n"
        "names = [entry.name for entry in get_registry()]\n"
        "assert 'PixArtAlphaPipeline' in names, names\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
