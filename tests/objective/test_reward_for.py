"""Rewards whose weight depends on the prompt: the gradient of each sample, whole runs, and settings that cannot be."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_cli.app import main
from dipp_toolkit import TrainConfig
from dipp_toolkit.config import make_config
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.distributed import Processes
from dipp_toolkit.errors import RequestError
from dipp_toolkit.monitoring.monitors import trained_on
from dipp_toolkit.objective.base import Sample
from dipp_toolkit.objective.evaluate import WeightedTerm, evaluate_objective
from dipp_toolkit.objective.mixing.mix import RewardMix
from dipp_toolkit.objective.result import joined, read_result
from dipp_toolkit.objective.terms.for_prompts import ForPrompts, PromptWeights
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.report.rerun_command import again_from_flags, setting_text
from dipp_toolkit.training.loop import mean_row, step_metrics
from dipp_toolkit.training.run import train
from dipp_toolkit.training.run_state.run_folder import RunFolder
from dipp_toolkit.training.setup.resolve import resolve
from dipp_toolkit.utils.assignments import parse_assignments, parse_rewards_for
from tiny_runs import metrics, tiny_world

PROMPTS = [
    {"prompt": "a red cat", "category": "cats"},
    {"prompt": "a blue dog", "category": "dogs"},
    {"prompt": "a green dog", "category": "dogs"},
    {"prompt": "a house", "category": "other"},
]
OWN = """
asked = []


def red(images, prompts):
    asked.extend(prompts)
    return images[:, 0].mean((1, 2))


def green(images, prompts):
    return images[:, 1].mean((1, 2))
"""


class Squares:
    """Scores a sample by the mean of its squares, and notes what it was asked."""

    differentiable = True

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        self.asked += prompts
        return images.square().mean((1, 2, 3))


def sample_of(prompts: list[str]) -> Sample:
    x0 = torch.rand(len(prompts), 3, 4, 4, generator=torch.Generator().manual_seed(0))
    condition = Condition(tuple(prompts), {"tokens": torch.zeros(len(prompts), 1)})
    return Sample(x0, condition, torch.zeros_like(x0), torch.Generator().manual_seed(0))


def test_each_sample_has_its_prompts_share_of_the_gradient() -> None:
    reward, sample = Squares(), sample_of(["a", "b", "c", "b"])
    term = RewardTerm("squares", reward, lambda latents: latents, black_box=False)
    whole = term(sample)
    reward.asked.clear()
    result = ForPrompts(term, PromptWeights(2.0, {"a": 1.0, "b": 0.25}, 0.0))(sample)
    assert reward.asked == ["a", "b", "b"]  # c gives it no weight
    expected = whole.grad * torch.tensor([1.0, 0.25, 0.0, 0.25])[:, None, None, None]
    assert torch.allclose(result.grad, expected, atol=1e-7)
    asked = whole.value[[0, 1, 3]]
    assert result.value[[0, 1, 3]].tolist() == pytest.approx(asked.tolist())
    assert result.mean_value.item() == pytest.approx(asked.mean().item())
    assert result.details["scored"] == 0.75


@pytest.mark.parametrize("order", [["a", "a", "c", "c"], ["c", "c", "a", "a"]])
def test_micro_batches_without_such_prompts_count_for_nothing(order: list[str]) -> None:
    reward, weights = Squares(), PromptWeights(1.0, {"a": 1.0}, 0.0)
    whole = sample_of(order)
    term = ForPrompts(RewardTerm("squares", reward, lambda latents: latents, black_box=False), weights)
    parts = []
    for rows in ([0, 1], [2, 3]):
        part = replace(whole, x0=whole.x0[rows], noise=whole.noise[rows], condition=whole.condition[rows])
        mix = RewardMix()
        parts.append(evaluate_objective([WeightedTerm("reward/squares", term, mixed=True)], part, mix))
        mix.commit()
    result, _ = read_result(joined(parts))
    there = [row for row, prompt in enumerate(order) if prompt == "a"]
    assert result.means["reward/squares"] == pytest.approx(whole.x0[there].square().mean().item())
    row = step_metrics(result, 0.0, None)
    assert row["reward/squares"] == pytest.approx(whole.x0[there].square().mean().item())
    assert row["scored/reward/squares"] == 0.5 and "latent_score/reward/squares" not in row


def test_processes_weigh_their_means_by_what_they_scored() -> None:
    class Two(Processes):
        def tell(self, value: Any) -> list[Any]:
            return [value, {"reward/x": 4.0, "scored/reward/x": 0.25, "loss": 3.0}]

    mean = mean_row(Two(count=2), {"scored/reward/x": 0.0, "loss": 1.0})
    assert mean == {"scored/reward/x": 0.125, "loss": 2.0, "reward/x": 4.0}
    mean = mean_row(Two(count=2), {"reward/x": 1.0, "scored/reward/x": 0.75, "loss": 1.0})
    assert mean["reward/x"] == pytest.approx(1.75)


def test_a_batch_of_other_prompts_asks_nothing() -> None:
    reward, sample = Squares(), sample_of(["c", "d"])
    term = RewardTerm("squares", reward, lambda latents: latents, black_box=False)
    result = ForPrompts(term, PromptWeights(1.0, {"a": 1.0}, 0.0))(sample)
    assert not reward.asked and not result.grad.any() and torch.isnan(result.mean_value)


@pytest.mark.parametrize(
    "text",
    [
        "category=text: ocr=1; category=two people: hps=0.5, judge:http://127.0.0.1:8000/v1?model=x=2",
        "category=a: ./own.py:red",
    ],
)
def test_what_is_written_is_read_again(text: str) -> None:
    found = parse_rewards_for(text)
    assert parse_rewards_for(setting_text(found)) == found
    assert all(weights for weights in found.values())
    assert make_config({"reward_for": text}).reward_for == found
    assert make_config(parse_assignments([f"reward_for={text}"])).reward_for == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("category=text", "gives prompts no rewards"),
        ("category=a: x; category=a: y", "named twice"),
        ("text: ocr=1", "expected category=NAME"),
        ("category=text: ocr=much", "expected a number"),
        ("category=text: ocr=inf", "expected a number"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        make_config({"reward_for": text})


@pytest.fixture
def world(tmp_path: Path) -> dict[str, Any]:
    """Settings of a small run on prompts with categories."""
    (tmp_path / "own.py").write_text(OWN)
    given = tiny_world(tmp_path)
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, PROMPTS)))
    return {
        **given, "prompts": str(tmp_path / "prompts.jsonl"), "prompt_cache": tmp_path / "cache", "precision": "fp32",
        "rewards": {f"{tmp_path}/own.py:red": 0.0, f"{tmp_path}/own.py:green": 1.0}, "eval_count": 2, "steps": 4,
        "reference_steps": 1, "device": "cpu", "batch_size": 2, "reward_scale": 3.0, "checkpoint_every": 2,
        "reward_for": {"category=cats": {f"{tmp_path}/own.py:red": 2.0, f"{tmp_path}/own.py:green": 0.0}},
    }  # fmt: skip


@pytest.mark.first_case
@pytest.mark.parametrize("balance", ["sum", "normalised", "pcgrad"])
def test_a_run_with_prompts_of_their_own_rewards_goes_on_to_the_same_numbers(
    tmp_path: Path, world: dict[str, Any], balance: str
) -> None:
    world = {**world, "balance": balance}
    train(TrainConfig(**world, out=tmp_path / "whole"))
    train(TrainConfig(**{**world, "steps": 2}, out=tmp_path / "part"))
    train(TrainConfig(**world, out=tmp_path / "part", resume=True))
    assert metrics(tmp_path / "part") == metrics(tmp_path / "whole")
    assert RunFolder(tmp_path / "whole").saved_config().reward_for == world["reward_for"]


def test_what_does_not_go_together_is_refused(tmp_path: Path, world: dict[str, Any]) -> None:
    red, green = world["rewards"]
    for changes, words in (
        ({"reward_for": {"category=cat": {red: 1.0}}}, "'cats'"),
        ({"reward_for": {"category=cats": {"sharpness": 1.0}}}, "sharpness=0 for none"),
        ({"reward_for": {"category=cats": {green: -1.0}}}, "one sign"),
        ({"floors": {red: 0.3}}, "a floor and a weight that depends on the prompt"),
        ({"term": "diffused_reward"}, "reward_for does not work with the term 'diffused_reward'"),
    ):
        with pytest.raises(RequestError, match=words):
            train(TrainConfig(**{**world, **changes}, out=tmp_path / "refused"))
    plain = tmp_path / "plain.txt"
    plain.write_text("a cat\na dog\n")
    with pytest.raises(RequestError, match="the prompts have no categories"):
        train(TrainConfig(**{**world, "prompts": str(plain)}, out=tmp_path / "refused"))


def test_a_reward_of_some_prompts_alone_counts_as_trained(tmp_path: Path, world: dict[str, Any]) -> None:
    red, _ = world["rewards"]
    config = TrainConfig(**{**world, "rewards": {red: 0.0}, "reward_for": {"category=cats": {red: -2.0}}})
    assert trained_on(config) == {red: -2.0}
    resolve(config.model_copy(update={"kl_budget": 0.05}))


def test_options_that_hold_others_are_written_as_they_are_read(tmp_path: Path) -> None:
    options = {"group-standard": {"of": "sharpness", "options": {"a": [1, 2], "b": "x: y"}}}
    lines = again_from_flags(TrainConfig(rewards={"group-standard": 1.0}, reward_options=options))
    (line,) = [line for line in lines if "options=" in line]
    read = parse_assignments([shlex.split(line)[1]])
    assert read["reward_options"]["group-standard"]["options"] == options["group-standard"]["options"]


def test_the_flag_says_the_same(tmp_path: Path, world: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    red, green = world["rewards"]
    words = ["train", "--generator", world["generator"], "--reference", world["reference"], "--dry-run"]
    words += ["--prompts", world["prompts"], "--reward", f"{red}=0,{green}", "--device", "cpu"]
    assert main([*words, "--reward-for", f"category=cats: {red}=2, {green}=0"]) == 0
    assert main([*words, "--reward-for", f"category=cars: {red}=2"]) == 2
    assert "cats" in capsys.readouterr().err
