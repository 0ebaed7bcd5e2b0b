"""Guidance and the rewards' scale over a run: what is typed, what each update sees, and what a plan counts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dipp_toolkit import RequestError
from dipp_toolkit.config import make_config
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.objective.base import Sample, TermResult
from dipp_toolkit.objective.terms.reward_sum import RewardSum
from dipp_toolkit.planning.estimate import make_plan
from dipp_toolkit.report.rerun_command import again_from_flags
from dipp_toolkit.training.setup.assembly import assemble
from dipp_toolkit.training.setup.resolve import resolve
from dipp_toolkit.utils.assignments import parse_assignments, read_yaml
from dipp_toolkit.utils.piecewise_linear import PiecewiseLinear
from tiny_runs import BLUE, blue_settings


def test_values_lie_on_straight_lines_and_stay_at_the_ends() -> None:
    line = PiecewiseLinear.parse(" 2:1, 6:3 ,8:0.5")
    assert [line(step) for step in (0, 2, 3, 4, 6, 7, 8, 900)] == [1, 1, 1.5, 2, 3, 1.75, 0.5, 0.5]
    assert str(line) == "2:1,6:3,8:0.5"
    assert PiecewiseLinear.parse("10:4")(0) == 4


@pytest.mark.parametrize(
    "wrong", ["", "7", "a:1", "0:", "0:x", "0:-1", "0:nan", "0:inf", "-1:2", "1.5:2", "3:1,3:2", "5:1,2:1", "1:2:3"]
)
@pytest.mark.parametrize("name", ["scale_schedule", "guidance_schedule"])
def test_what_is_no_schedule_is_refused_with_an_example(name: str, wrong: str) -> None:
    with pytest.raises(RequestError, match=rf"{name} cannot be .*(an example is|as in) 0:1,200:4\.5") as raised:
        make_config({name: wrong})
    assert "Traceback" not in str(raised.value)


def test_a_number_of_a_yaml_file_is_refused_and_a_mapping_is_read() -> None:
    with pytest.raises(RequestError, match="guidance_schedule cannot be 90"):
        make_config({"guidance_schedule": 90})  # what YAML 1.1 makes of 1:30
    assert make_config({"guidance_schedule": {0: 1, 20: 4.5}}).guidance_schedule == "0:1,20:4.5"


def test_null_is_no_schedule() -> None:
    assert make_config(parse_assignments(["guidance_schedule=null", "scale_schedule=null"])) == make_config({})


def test_a_schedule_survives_flags_and_config_yaml(tmp_path: Path) -> None:
    typed = parse_assignments(["guidance_schedule=0:1,200:4.5", "scale_schedule=0:0,100:1"])
    config = make_config(typed)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert make_config(read_yaml(tmp_path / "config.yaml")) == config
    lines = again_from_flags(make_config({**typed, "generator": "emoji-onestep"}))
    assert "--set guidance_schedule=0:1,200:4.5" in lines and "--set scale_schedule=0:0,100:1" in lines


def test_whether_a_run_is_ever_guided_depends_on_its_length() -> None:
    ramp = {"guidance_schedule": "0:1,50:1,60:3", "guidance": 4.0}
    assert not make_config({**ramp, "steps": 51}).is_guided
    assert make_config({**ramp, "steps": 52}).is_guided
    assert make_config({"guidance": 4.0}).is_guided and not make_config({}).is_guided
    assert make_config({**ramp, "steps": 56}).comparison_guidance == 2
    assert make_config({**ramp, "steps": 56, "reference_guidance": 0.0}).comparison_guidance == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("world")
    return blue_settings(folder, BLUE)


@pytest.mark.parametrize("name", ["integral_kl", "score_divergence", "diffused_reward", "f_divergence"])
def test_each_divergence_sees_the_guidance_of_the_update(world: dict[str, Any], name: str) -> None:
    settings = {"term": name, "rewards": {}, "guidance_schedule": "2:1,4:3", "guidance": 9.0}
    parts, asked = assemble(resolve(make_config(world | settings))), []
    null, term = parts.reference.null, parts.engine.terms[0].term
    parts.reference.null = lambda batch: asked.append(batch) or null(batch)  # type: ignore[method-assign, func-returns-value]
    x0 = torch.randn(2, *parts.reference.latent_shape, generator=torch.Generator().manual_seed(1))

    def gradient(term: Any, step: int) -> torch.Tensor:
        random = torch.Generator().manual_seed(2)
        return term(Sample(x0, parts.conditions[[0, 1]], torch.zeros_like(x0), random, step)).grad

    for step, guidance in ((0, 1.0), (3, 2.0), (50, 3.0)):
        asked.clear()
        found = gradient(replace(term, ratio=copy.deepcopy(term.ratio)) if name == "f_divergence" else term, step)
        assert bool(asked) == (guidance != 1), "the empty prompt is evaluated where it counts, and nowhere else"
        assert torch.equal(found, gradient(replace(term, guidance=guidance), 0)), step


def test_rewards_inside_a_terms_formula_hear_of_the_schedule_too() -> None:
    class Sum:
        def __call__(self, sample: Sample) -> TermResult:
            return TermResult(sample.x0.sum(1), -torch.ones_like(sample.x0))

        def score(self, latents: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
            return latents.sum(1)

    x0 = torch.ones(2, 3)
    rewards = RewardSum({"sum": Sum()}, {"sum": 2.0}, PiecewiseLinear.parse("0:0,4:1"))
    for step, factor in ((0, 0.0), (1, 0.25), (9, 1.0)):
        total, gradient, _ = rewards.differentiate(Sample(x0, Condition(("", ""), {}), x0, torch.Generator(), step))
        assert (gradient == 2 * factor).all() and (total == 6 * factor).all()


def test_the_plan_counts_the_guided_pass_where_there_ever_is_one(world: dict[str, Any]) -> None:
    plain, guided, late = (
        make_plan(resolve(make_config(world | {"rewards": {}} | settings)))
        for settings in ({}, {"guidance": 3.0}, {"guidance_schedule": "0:1,5:3"})
    )
    assert late.flops == guided.flops and late.transient == guided.transient
    assert sum(plain.flops.values()) < sum(late.flops.values())
