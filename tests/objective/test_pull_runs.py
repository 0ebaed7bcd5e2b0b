"""A pull in whole runs: flags, layers of settings, refusals, resuming, the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from dipp_cli.actions.settings import gather
from dipp_cli.app import main
from dipp_toolkit.config import TrainConfig, make_config
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RequestError
from dipp_toolkit.experiments.ablation.grid import make_cell
from dipp_toolkit.monitoring.monitors import trained_on
from dipp_toolkit.objective.base import Sample
from dipp_toolkit.objective.terms.policy_gradient import PolicyGradient
from dipp_toolkit.objective.terms.reward_sum import RewardSum
from dipp_toolkit.training.setup.resolve import resolve
from dipp_toolkit.utils.setting_layers import over
from tiny_runs import colour_words, colour_world

COLOURS = """
def red(images, prompts):
    return images[:, 0].mean((1, 2))

def blue(images, prompts):
    return 1e-4 * images[:, 2].mean((1, 2))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pulls")
    return colour_world(folder, COLOURS)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def words(world: Path, *more: str, steps: int = 1) -> list[str]:
    return colour_words(world, "--reward", f"{world}/colours.py:red,{world}/colours.py:blue", *more, steps=steps)


def metrics(folder: str) -> list[dict[str, Any]]:
    measured = ("seconds", "images_per_second", "memory_mb")
    rows = map(json.loads, Path(folder, "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in row.items() if name not in measured} for row in rows]


def test_a_run_resumes_to_the_bit_within_its_measurement_and_says_what_it_held(world: Path) -> None:
    more = ["--pull", "0.5", "--set", "accumulation=2", "--set", "checkpoint_every=2"]
    assert main(words(world, *more, "--out", "whole", steps=4)) == 0
    assert main(words(world, *more, "--out", "parts", steps=2)) == 0
    assert main(["train", "--resume", "--out", "parts", "--steps", "4", "--quiet"]) == 0
    rows = metrics("whole")
    assert rows == metrics("parts")
    assert rows[0]["pull"] == pytest.approx(0.5, rel=1e-4)
    for row in rows:
        assert row[f"scale/reward/{world}/colours.py:blue"] > 100 * row[f"scale/reward/{world}/colours.py:red"]
    saved = yaml.safe_load(Path("whole/config.yaml").read_text())
    assert (saved["reward_scale"], saved["pull"]) == ("auto", 0.5)
    report = Path("whole/report.html").read_text()
    assert "measured over updates 1 to 4" in report and "the same as reward_scale=1 with the weights" in report
    assert "Pull of the rewards" in report


@pytest.mark.parametrize(
    "more",
    [
        ["--set", "generator_steps=2", "--set", "supervise=every"],
        ["--set", "term=integral_kl,policy_gradient", "--set", "term.policy_gradient.group=2"],
        ["--balance", "pcgrad"],
    ],
)
def test_the_first_update_has_the_pull_that_was_asked_for(world: Path, more: list[str]) -> None:
    assert main(words(world, "--pull", "0.5", *more, "--out", "run")) == 0
    assert metrics("run")[0]["pull"] == pytest.approx(0.5, rel=1e-4)


def test_a_weak_scale_is_warned_of_on_the_terminal_and_in_the_report(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(world, "--reward-scale", "1e-5", "--out", "run")) == 0
    said = capsys.readouterr().err
    assert "Warning: The rewards pull" in said and "--pull 0.7 or --reward-scale" in said
    assert (
        "In 1 of the first 1 updates: the rewards pull"
        in json.loads(Path("run/summary.json").read_text())["warnings"][0]
    )
    assert "they will change next to nothing" in Path("run/report.html").read_text()


def test_a_pull_stands_over_a_scale_of_a_lower_layer_and_the_other_way(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("reward_scale: 80\n")
    assert gather({"pull": 0.5}, [], file).strength == "pull 0.5"
    assert gather({}, ["pull=0.5"], file).strength == "pull 0.5"
    file.write_text("pull: 0.5\n")
    assert gather({"reward_scale": 3.0}, [], file).strength == "scale 3"
    assert gather({"pull": 0.2}, [], file).strength == "pull 0.2"
    with pytest.raises(RequestError, match="pull and reward_scale are both given"):
        gather({"pull": 0.5, "reward_scale": 3.0}, [])
    file.write_text(make_config({"reward_scale": 80}).to_yaml())
    assert make_config(yaml.safe_load(file.read_text())).strength == "scale 80", "settings read what they wrote"
    assert make_config(yaml.safe_load(make_config({"pull": 0.3}).to_yaml())).strength == "pull 0.3"


def test_pulls_and_scales_vary_in_an_ablation() -> None:
    base = TrainConfig(rewards={"a": 1.0}, reward_scale=80)
    assert make_cell({"pull": "0.1"}).config(base).strength == "pull 0.1"
    assert make_cell({"reward_scale": "auto"}).config(base).strength == "pull 0.7"
    assert make_cell({"reward_scale": "10"}).config(make_config({"pull": 0.1})).strength == "scale 10"
    assert trained_on(make_config({"rewards": {"a": 1.0}, "pull": 0.1})) == {"a": 1.0}


@pytest.mark.parametrize(
    ("term", "sentence"),
    [
        ("reward_only", "A pull is measured against a divergence, and 'reward_only' is not a divergence"),
        ("policy_gradient", "'policy_gradient' is not a divergence"),
        ("diffused_reward", "'diffused_reward' has the rewards inside its own formula"),
    ],
)
def test_terms_without_a_pull_are_refused_where_it_was_asked_for(term: str, sentence: str) -> None:
    asked = {"generator": "pixart-onestep", "rewards": {"colourfulness": 1.0}, "prompts": "emoji-train", "term": term}
    assert resolve(make_config(asked)).reward_scale == 1.0, "it is only recommended"
    with pytest.raises(RequestError, match=sentence):
        resolve(make_config(asked | {"pull": 0.7}))
    with pytest.raises(RequestError, match=sentence):
        resolve(make_config(asked | {"reward_scale": "auto"}))
    assert resolve(make_config(asked | {"reward_scale": 5})).reward_scale == 5
    distilled = {name: value for name, value in asked.items() if name != "rewards"}
    assert resolve(make_config(distilled | {"pull": 0.7})).measures_pull, "without rewards it means nothing"


def test_published_names_recommend_a_pull() -> None:
    asked = {"generator": "pixart-onestep", "rewards": {"colourfulness": 1.0}, "prompts": "emoji-train"}
    assert resolve(make_config(asked)).strength == "pull 0.7"
    assert resolve(make_config(asked | {"pull": 0.2})).strength == "pull 0.2"
    assert (
        resolve(make_config({"rewards": {"colourfulness": 1.0}, "generator": "emoji-onestep"})).strength == "scale 80"
    )
    assert over({"reward_scale": "auto", "pull": 0.5}, {"reward_scale": 2.0}) == {"reward_scale": 2.0}


class Slope:
    """Scores of latents, linear in them, on top of an offset."""

    def __init__(self, size: float, offset: float) -> None:
        self.size, self.offset = size, offset

    def __call__(self, sample: Sample) -> Any:
        raise NotImplementedError

    def score(self, latents: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.size * latents.flatten(1).sum(1) + self.offset


def pushed(size: float = 1.0, offset: float = 0.0, **options: Any) -> Tensor:
    """The gradient of a policy gradient on samples."""
    x0 = torch.ones(3, 1, 2, 2)
    term = PolicyGradient(RewardSum({"r": Slope(size, offset)}, {"r": 1.0}), **options)
    return term(Sample(x0, Condition(("",) * 3), x0, torch.Generator().manual_seed(0))).grad


@pytest.mark.parametrize("normalise", [True, False])
def test_a_policy_gradient_answers_to_reward_scale(normalise: bool) -> None:
    torch.testing.assert_close(pushed(scale=50.0, normalise=normalise), 50 * pushed(normalise=normalise))


@pytest.mark.parametrize("normalise", [True, False])
def test_a_policy_gradient_hears_no_rounding(normalise: bool) -> None:
    assert not pushed(size=1e-7, offset=100.0, normalise=normalise).any(), "a deviation of scores' rounding is none"
    assert not pushed(size=0.0, normalise=normalise).any()
    assert pushed(size=1e-7, normalise=normalise).any(), "small scores are no rounding"
    assert pushed(size=1e-2, offset=100.0, normalise=normalise).any()
