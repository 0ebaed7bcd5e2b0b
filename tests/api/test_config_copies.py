"""Settings from a file, and copies with changes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from dipp_toolkit import RequestError, TrainConfig


def test_a_copy_differs_in_what_was_changed_alone() -> None:
    config = TrainConfig(generator="emoji-onestep", steps=7, reward_options={"a": {"x": 1}})
    changed = config.replace(seed=3, reward_options={"a": {"y": 2}})
    assert (changed.generator, changed.steps, changed.seed) == ("emoji-onestep", 7, 3)
    assert changed.reward_options == {"a": {"x": 1, "y": 2}}
    assert config.seed == 0 and config.reward_options == {"a": {"x": 1}}
    assert changed.model_fields_set == {"generator", "steps", "seed", "reward_options"}, "the rest is recommended"


def test_a_scale_takes_the_place_of_a_pull() -> None:
    assert TrainConfig(pull=0.5).replace(reward_scale=3).alpha_rew == 3
    assert TrainConfig(reward_scale=3).replace(pull=0.5).measures_pull


def test_settings_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("steps: 5\nmonitor:\n  every: 9\n")
    config = TrainConfig.from_yaml(file, seed=4)
    assert (config.steps, config.monitor_every, config.seed) == (5, 9, 4)
    file.write_text(config.to_yaml())
    assert TrainConfig.from_yaml(str(file)) == config
    with pytest.raises(RequestError, match="No such file"):
        TrainConfig.from_yaml(tmp_path / "none.yaml")


def test_settings_are_copied_and_pickled() -> None:
    config = TrainConfig(generator="emoji-onestep")
    for other in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert other == config and other.model_fields_set == config.model_fields_set
