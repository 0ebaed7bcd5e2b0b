"""Settings: what is accepted, and one sentence for each thing that is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dipp_toolkit.config import TrainConfig, make_config
from dipp_toolkit.errors import RequestError
from dipp_toolkit.utils.assignments import parse_assignments, parse_rewards, read_yaml


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hps", {"hps": 1.0}),
        ("hps=2,imagereward=0.5", {"hps": 2.0, "imagereward": 0.5}),
        (" a = 1e-3 , b", {"a": 1e-3, "b": 1.0}),
        ("./blue.py:blueness=3", {"./blue.py:blueness": 3.0}),
        ("a=-1", {"a": -1.0}),
        ("", {}),
        ("a,", {"a": 1.0}),
    ],
)
def test_rewards_are_read(text: str, expected: dict) -> None:
    assert parse_rewards(text) == expected
    assert make_config({"rewards": text}).rewards == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hps=much", r"The weight of the reward 'hps' is 'much'; expected a number, as in hps=0\.5\."),
        ("hps=", r"weight of the reward 'hps' is ''"),
        ("hps=nan", "is 'nan'; expected a number"),
        ("hps=inf", "is 'inf'; expected a number"),
        ("hps=1,hps=2", "The reward 'hps' is named twice"),
    ],
)
def test_bad_reward_weights_get_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        parse_rewards(text)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"steps": 0}, r"The setting steps cannot be 0: input should be greater than 0\."),
        ({"steps": -5}, "The setting steps cannot be -5"),
        ({"steps": "many"}, "The setting steps cannot be 'many'"),
        ({"steps": 2.5}, "The setting steps cannot be 2.5"),
        ({"batch_size": 0}, "batch_size cannot be 0"),
        ({"seed": -1}, "seed cannot be -1"),
        ({"learning_rate": 0}, "learning_rate cannot be 0"),
        ({"learning_rate": float("nan")}, "learning_rate cannot be nan"),
        ({"reward_scale": float("inf")}, "reward_scale cannot be inf"),
        ({"ema": 1.0}, r"ema cannot be 1\.0"),
        ({"readout": 0}, "readout cannot be 0"),
        ({"readout": "1000/999"}, "readout cannot be 1.001001001001001: input should be less than or equal to 1"),
        ({"readout": "1/0"}, "readout cannot be '1/0': expected a number"),
        ({"readout": "a/b"}, "readout cannot be 'a/b': expected a number"),
        ({"input_scale": "alpha"}, "input_scale cannot be 'alpha': input should be 'unit' or 'sigma'"),
        ({"eval_seeds": 1}, "eval_seeds cannot be 1"),
        ({"precision": "fp8"}, "precision cannot be 'fp8'"),
        ({"time_range": (0.9, 0.1)}, "expected two times with 0 <= low < high <= 1"),
        ({"time_range": "0.5"}, "time_range"),
        ({"rewards": {"hps": float("inf")}}, "the weight of 'hps' is inf"),
        ({"stepz": 10}, r"There is no setting 'stepz'\. Did you mean 'steps'\?"),
        ({"qqqqqq": 10}, r"There is no setting 'qqqqqq'\.$"),
        ({"trackers": "excel"}, "excel"),
    ],
)
def test_bad_settings_get_a_sentence(values: dict, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence) as error:
        make_config(values)
    assert "\n" not in str(error.value)


def test_two_mistakes_give_two_sentences() -> None:
    with pytest.raises(RequestError) as error:
        make_config({"steps": 0, "stepz": 1})
    assert "steps cannot be 0" in str(error.value)
    assert "no setting 'stepz'" in str(error.value)


def test_defaults_are_valid_and_frozen() -> None:
    config = make_config({})
    assert make_config(config.model_dump()) == config
    with pytest.raises(RequestError, match=r"others of them: config\.replace\(steps=3\)"):
        config.steps = 3  # type: ignore[misc]


def test_every_setting_is_described() -> None:
    assert [name for name, field in TrainConfig.model_fields.items() if not field.description] == []


def test_text_forms_of_lists_are_understood() -> None:
    config = make_config({"time_range": "0.1,0.9", "trackers": "tensorboard,wandb"})
    assert config.time_range == (0.1, 0.9)
    assert config.trackers == ("tensorboard", "wandb")


def test_a_read_out_can_be_said_as_a_timestep_of_the_grid() -> None:
    config = make_config(parse_assignments(["readout=399/999"]))
    assert config.readout == 399 / 999
    assert make_config(yaml.safe_load(config.to_yaml())) == config
    assert make_config({"readout": "0.4"}).readout == make_config({"readout": 0.4}).readout == 0.4


def test_yaml_round_trip(tmp_path: Path) -> None:
    config = make_config(
        {
            "steps": 7,
            "rewards": "a=0.5,./b.py:f=2",
            "reward_options": {"a": {"version": "v2.1"}},
            "time_range": (0.1, 0.5),
            "out": tmp_path / "run",
            "trackers": ("wandb",),
            "generator": "x",
        }
    )
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert make_config(read_yaml(path)) == config


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"steps: [1", "is not valid YAML"),
        (b"\xff\xfe\x00bad", "is not valid YAML"),
        (b"- 1\n- 2\n", "contains list; expected names with values"),
        (b"", "is empty; expected"),
    ],
)
def test_bad_yaml_gets_a_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=sentence):
        read_yaml(path)


def test_a_missing_yaml_and_a_folder_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"Cannot read the settings file .*gone\.yaml: No such file"):
        read_yaml(tmp_path / "gone.yaml")
    with pytest.raises(RequestError, match=r"Cannot read the settings file .*directory"):
        read_yaml(tmp_path)


def test_assignments() -> None:
    assert parse_assignments(
        [
            "steps=100",
            "learning_rate=1e-4",
            "term=integral_kl",
            "reward.hps.version=v2.1",
            "reward.hps.size=3",
            "time_range=0.1,0.9",
        ]
    ) == {
        "steps": 100,
        "learning_rate": "1e-4",
        "term": "integral_kl",
        "reward_options": {"hps": {"version": "v2.1", "size": 3}},
        "time_range": "0.1,0.9",
    }


def test_assignments_make_a_config() -> None:
    config = make_config(
        parse_assignments(["learning_rate=1e-4", "rewards=a=2,b", "out=runs/x", "guidance=4.5", "trackers=wandb"])
    )
    assert config.learning_rate == 1e-4
    assert config.rewards == {"a": 2.0, "b": 1.0}
    assert config.out == Path("runs/x")
    assert config.trackers == ("wandb",)


def test_an_option_of_a_reward_from_a_file() -> None:
    assert parse_assignments(["reward../blue.py:Blue.size=3"]) == {"reward_options": {"./blue.py:Blue": {"size": 3}}}


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("steps", "--set steps is not an assignment; expected NAME=VALUE"),
        ("=3", "is not an assignment"),
        ("reward.size=3", "does not name an option; expected reward.NAME.OPTION"),
    ],
)
def test_bad_assignments_get_a_sentence(assignment: str, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        parse_assignments([assignment])
