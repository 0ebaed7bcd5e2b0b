"""What rewards say of themselves, in `dipp reward show`, and on docs/reference/rewards.md."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from dipp_cli.app import main
from dipp_toolkit.errors import RequestError
from dipp_toolkit.hooks import hookimpl
from dipp_toolkit.models.blueprints import RewardBlueprint, find_blueprint, parameter_count
from dipp_toolkit.registry import Registry, get_registry
from dipp_toolkit.rewards import facts as reward_facts
from dipp_toolkit.rewards.facts import EXAMPLES, all_facts, facts_of
from dipp_toolkit.rewards.isolated.environments import Environment, registered
from dipp_toolkit.rewards.open_clip_models import empty_clip
from dipp_toolkit.utils.licences import Licence, Origin

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "rewards.md"
BENCHMARK = ROOT / "benchmarks" / "rewards"
CLIPS = {"pickscore": "ViT-H-14", "clip": "ViT-L-14-quickgelu", "clip-g": "ViT-g-14"}


class Told:
    """A reward's class that says all."""

    range = "0 or 1"
    licence = ""
    source = "a paper"
    blind_to = "the sky"
    differentiable = True
    gradient = "through a sum"
    reads_prompts = False


class Silent:
    """One that says nothing, and has attributes of these names that mean something else."""

    range = (0, 1)
    source = property(lambda self: "not of the class")
    differentiable = "perhaps"


def test_every_reward_says_what_one_should_know_of_it() -> None:
    """A new reward fails here until its class says `range`, `licence`, `source` and `blind_to`."""
    assert {facts.name: facts.missing for facts in all_facts() if facts.missing} == {}


def test_every_reward_has_its_rows_on_the_page() -> None:
    isolated = [f"{environment.reward}@isolated" for environment in registered().values()]
    names = [*get_registry().entries["reward"], *isolated, *EXAMPLES]
    assert {"hps@isolated", "hpsv3@isolated", "judge", "ensemble"} <= {*names}
    rows = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for name in names:
        first, second = [row for row in rows if row[0] == f"| `{name}`"][:2]
        assert len(first) == 5 and len(second) == 3, name
        assert "not stated" not in (*first, *second), name


def test_the_page_has_the_tables_that_the_recorded_numbers_make() -> None:
    run = runpy.run_path(str(BENCHMARK / "run.py"))
    results = json.loads((BENCHMARK / "results.json").read_text(encoding="utf-8"))
    assert run["cost_page"](results) == (BENCHMARK / "results.md").read_text(encoding="utf-8")
    assert run["spread_page"](results) == (BENCHMARK / "spread.md").read_text(encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    assert run["cost_page"](results).strip() in text and run["spread_page"](results).strip() in text


@pytest.mark.parametrize("name", CLIPS)
def test_a_blueprint_has_the_parameters_of_the_published_architecture(name: str) -> None:
    blueprint = find_blueprint(name)
    assert isinstance(blueprint, RewardBlueprint)
    with torch.device("meta"):
        assert parameter_count(blueprint.build()) == parameter_count(empty_clip(CLIPS[name])[0])


def test_the_aesthetic_blueprint_scores_and_is_a_clip_with_a_head() -> None:
    blueprint = find_blueprint("aesthetic")
    assert isinstance(blueprint, RewardBlueprint)
    with torch.device("meta"):
        network = blueprint.build()
        assert network(torch.rand(2, 3, 96, 64)).shape == (2,)
    head = 768 * 1024 + 1024 * 128 + 128 * 64 + 64 * 16 + 16 + 1024 + 128 + 64 + 16 + 1
    assert parameter_count(network) == parameter_count(empty_clip("ViT-L-14-quickgelu")[0]) + head


@pytest.fixture
def with_plugin(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry of somebody's plugin, in the place of the installed ones."""

    @hookimpl(specname="dipp_register_rewards")
    def register_rewards(register: Any) -> None:
        origin = Origin("somebody/told", Licence("cc-by-nc-4.0", non_commercial=True))
        register("told", Told, origin=origin)
        register("silent", Silent, origin=origin)
        register("function", lambda: None)
        register("elsewhere", Silent, described=Told, origin=origin)
        register("broken", "no_such_module:Reward", origin=origin)

    plugin = ModuleType("somebody")
    plugin.dipp_register_rewards = register_rewards  # type: ignore[attr-defined]
    registry.add_plugin("somebody", lambda: plugin)
    assert registry.broken == []
    monkeypatch.setattr(reward_facts, "get_registry", lambda: registry)
    return registry


def test_a_plugin_s_reward_says_what_its_class_or_its_registration_does(with_plugin: Registry) -> None:
    told = facts_of("told")
    assert (told.range, told.source, told.blind_to) == ("0 or 1", "a paper", "the sky")
    assert told.licence == "cc-by-nc-4.0 (not for commercial use)"
    assert told.gradient_text == "yes: through a sum"
    assert not told.reads_prompts and told.missing == []
    assert facts_of("elsewhere").range == "0 or 1"
    assert facts_of("told@mine") == replace(told, name="told@mine")


@pytest.mark.parametrize("name", ["silent", "function", "broken"])
def test_a_plugin_that_says_nothing_is_not_refused(name: str, with_plugin: Registry) -> None:
    facts = facts_of(name)
    assert facts.range == "" and facts.differentiable is None and facts.gradient_text == "it depends"
    assert facts.source == ("" if name == "function" else "https://huggingface.co/somebody/told")
    assert "range" in facts.missing


def test_an_environment_without_a_registered_reward_says_it_itself_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    apart, silent = (Environment(name, ("apart==1",), reward=name) for name in ("apart", "silent"))
    known = {"apart": replace(apart, described=Told), "silent": silent}
    monkeypatch.setattr(reward_facts, "find_registered", known.get)
    assert facts_of("apart@isolated").range == "0 or 1"
    assert facts_of("silent@isolated").missing == ["range", "licence", "source", "blind_to"]
    assert facts_of("hps@isolated").range == facts_of("hps").range
    with pytest.raises(RequestError, match="no reward named 'nobody'"):
        facts_of("nobody@isolated")


def test_kinds_that_ask_others_are_known_by_what_is_typed(tmp_path: Path) -> None:
    assert facts_of("judge:http://127.0.0.1:8000/v1?model=x").asks == "the model that is asked"
    assert facts_of("http://127.0.0.1:8700/hps").asks == "the server"
    (tmp_path / "mine.py").write_text("class Mine:\n    range = '3'\n\ndef f(images, prompts):\n    return []\n")
    with (tmp_path / "mine.py").open("a") as file:
        file.write("def g(images, prompts):\n    return []\n\ng.differentiable = False\n")
    assert facts_of(f"{tmp_path}/mine.py:Mine").range == "3"
    assert facts_of(f"{tmp_path}/mine.py:f").asks == "your function"
    assert facts_of(f"{tmp_path}/mine.py:f").gradient_text.startswith("it depends")
    assert facts_of(f"{tmp_path}/mine.py:g").gradient_text == "no, a black box"


def test_show_prints_one_and_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reward", "show", "hps@isolated"]) == 0
    text = capsys.readouterr().out
    assert "986 M" in text and facts_of("hps").blind_to in text and "Apache-2.0" in text
    assert main(["reward", "show", "emoji-clip", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 916449
    assert main(["reward", "show"]) == 0
    table = capsys.readouterr().out
    assert all(facts.name in table for facts in all_facts())
    assert main(["reward", "show", "emoji-clp"]) == 2
    assert "emoji-clip" in capsys.readouterr().err
