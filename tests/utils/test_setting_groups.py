"""Settings in groups: the grouped and the flat name of a setting mean the same wherever settings are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dipp_cli.actions.settings import gather
from dipp_toolkit.config import TrainConfig, make_config
from dipp_toolkit.errors import RequestError
from dipp_toolkit.experiments.ablation.grid import check_cells, grid, make_cell, parse_vary, read_cells
from dipp_toolkit.hooks import hookimpl
from dipp_toolkit.planning.recipes.recipe import parse_recipe
from dipp_toolkit.registry import Registry
from dipp_toolkit.utils.assignments import parse_assignments
from dipp_toolkit.utils.setting_layers import FLAT, GROUPED, GROUPS, merge, over

OTHER = {
    "monitor.every": 5,
    "lora.rank": 8,
    "black_box.method": "smoothing",
    "checkpoint.keep": 7,
    "time.weighting": "snr",
}
"""Values that are not the defaults, by grouped name."""


def nested(values: dict[str, Any]) -> dict[str, Any]:
    groups: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        group, _, member = name.partition(".")
        groups.setdefault(group, {})[member] = value
    return groups


def flat(values: dict[str, Any]) -> dict[str, Any]:
    return {FLAT[name]: value for name, value in values.items()}


def test_every_grouped_name_is_of_one_setting() -> None:
    assert len(FLAT) == len(GROUPED) and GROUPED.keys() <= TrainConfig.model_fields.keys()
    assert not FLAT.keys() & TrainConfig.model_fields.keys()
    prefixed = {name for name in TrainConfig.model_fields for group in GROUPS if name.startswith(f"{group}_")}
    assert prefixed <= GROUPED.keys()


@pytest.mark.parametrize("spelled", [OTHER, nested(OTHER), flat(OTHER)], ids=["dotted", "nested", "flat"])
def test_every_spelling_gives_the_same_settings(spelled: dict[str, Any], tmp_path: Path) -> None:
    expected = make_config(flat(OTHER))
    assert expected.monitor_every == 5 and expected.keep_checkpoints == 7 and expected.black_box == "smoothing"
    assert make_config(spelled) == TrainConfig(**spelled) == expected
    assert make_config(spelled).model_fields_set == expected.model_fields_set == set(flat(OTHER))
    assert make_config(spelled).to_yaml() == expected.to_yaml()
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(spelled), encoding="utf-8")
    assert gather({}, [], file) == expected
    assert all(expected[name] == expected[FLAT[name]] == getattr(expected, FLAT[name]) for name in OTHER)


def test_assignments_take_either_name_and_the_later_one_wins() -> None:
    assignments = ["monitor_every=4", "monitor.every=5", "assistant.time_range=0.1,0.9", "reward.hps.version=v2"]
    config = make_config(parse_assignments(assignments))
    assert (config.monitor_every, config.assistant_time_range) == (5, (0.1, 0.9))
    assert config.reward_options == {"hps": {"version": "v2"}}
    assert make_config(parse_assignments(["monitor.every=5", "monitor_every=4"])).monitor_every == 4


def test_a_layer_replaces_the_same_setting_by_its_other_name(tmp_path: Path) -> None:
    for low in ({"lora_rank": 4}, {"lora.rank": 4}, {"lora": {"rank": 4, "alpha": 2.0}}):
        for high in ({"lora_rank": 8}, {"lora.rank": 8}, {"lora": {"rank": 8}}):
            assert make_config(over(low, high)).lora_rank == make_config(merge(low, high)).lora_rank == 8
    assert make_config(over({"lora": {"rank": 4, "alpha": 2.0}}, {"lora.rank": 8})).lora_alpha == 2.0
    file = tmp_path / "settings.yaml"
    file.write_text("monitor: {every: 5, count: 8}\nblack_box: smoothing\n", encoding="utf-8")
    config = gather({}, ["monitor_every=7", "black_box.pairs=3"], file)
    assert (config.monitor_every, config.monitor_count) == (7, 8)
    assert (config.black_box, config.black_box_pairs) == ("smoothing", 3)
    assert make_config(over({"lora": ["a"]}, {"lora": {"rank": 3}})).lora == ("a",)
    assert make_config(over({"lora": {"files": "a"}}, {"lora": "b,c"})).lora == ("b", "c")


def test_a_flag_and_an_assignment_of_one_setting() -> None:
    assert gather({"eval_count": 8}, ["eval.count=8"]).eval_count == 8
    with pytest.raises(RequestError, match=r"The setting eval\.count is given twice: as a flag 8 and with --set 9"):
        gather({"eval_count": 8}, ["eval.count=9"])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"monitor.every": -1}, r"The setting monitor\.every cannot be -1: "),
        ({"monitor": {"every": -1}}, r"The setting monitor\.every cannot be -1: "),
        ({"monitor_every": -1}, r"The setting monitor_every cannot be -1: "),
        ({"monitor.evry": 1}, r"There is no setting 'monitor\.evry'\. Did you mean 'monitor\.every'\?$"),
        ({"lora": {"rnk": 1}}, r"There is no setting 'lora\.rnk'\. Did you mean 'lora\.rank'\?$"),
        ({"monitor_evry": 1}, r"There is no setting 'monitor_evry'\. Did you mean 'monitor_every'\?$"),
        ({"monitor": 5}, r"'monitor' is a group of settings, not one of them\. Set monitor\.every, monitor\.count"),
        (
            {"monitor_every": 3, "monitor": {"every": 3}},
            r"monitor\.every is given twice, once as monitor_every",
        ),
        ({"black_box": "guess"}, "The setting black_box cannot be 'guess'"),
        ({"black_box": {"method": "guess"}}, r"The setting black_box\.method cannot be 'guess'"),
    ],
)
def test_messages_call_a_setting_as_it_was_given(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        make_config(values)


def test_reading_an_unknown_setting_suggests_the_nearest() -> None:
    with pytest.raises(RequestError, match=r"no setting 'lora\.rnk'\. Did you mean 'lora\.rank'"):
        make_config({})["lora.rnk"]


def test_cells_are_the_same_by_either_name(tmp_path: Path) -> None:
    (grouped,), (plain,) = grid(parse_vary(["lora.rank=8"])), grid(parse_vary(["lora_rank=8"]))
    file = tmp_path / "cells.yaml"
    file.write_text("- lora: {rank: 8}\n", encoding="utf-8")
    (listed,) = read_cells(file)
    base = make_config({"lora_rank": 4, "lora": "x"})
    for cell in (grouped, plain, listed):
        assert (cell.label, cell.slug, cell.config(base).lora_rank) == ("lora_rank=8", "lora_rank=8", 8)
        assert cell.config(base).lora == ("x",)
    with pytest.raises(RequestError, match=r"The setting lora_rank is varied twice"):
        parse_vary(["lora.rank=8", "lora_rank=4"])
    with pytest.raises(RequestError, match=r"The setting lora\.rank cannot be -8"):
        check_cells([make_cell({"lora.rank": "-8"})], base)


def test_recipes_and_recommended_settings_take_grouped_names() -> None:
    group = {"from": "a paper", "values": {"monitor": {"every": 5}, "lora.rank": 8, "steps": 10}}
    content = {"title": "t", "reproduces": "r", "source": ["s"], "settings": [group]}
    recipe = parse_recipe(content)
    assert recipe.values == {"monitor_every": 5, "lora_rank": 8, "steps": 10}
    assert recipe.origins == dict.fromkeys(recipe.values, "a paper")
    with pytest.raises(RequestError, match=r"no setting 'monitor\.evry'\. Did you mean 'monitor\.every'\? "):
        parse_recipe(content | {"settings": [{"from": "s", "values": {"monitor": {"evry": 5}}}]})
    with pytest.raises(RequestError, match="the setting monitor_every appears twice"):
        parse_recipe(content | {"settings": [group, {"from": "s", "values": {"monitor_every": 5}}]})

    class Plugin:
        @hookimpl
        def dipp_register_generators(self, register: Any) -> None:
            register("named", "some:thing", defaults={"monitor": {"every": 5}, "lora.rank": 8})

    registry = Registry()
    registry.add_plugin("named", Plugin)
    assert registry.entries["generator"]["named"].defaults == {"monitor_every": 5, "lora_rank": 8}
