"""Rewards of all images of a prompt at once: against formulas written again, in training, and refused."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dipp_cli.app import main
from dipp_toolkit import TrainConfig
from dipp_toolkit.errors import RequestError
from dipp_toolkit.evaluation.comparison import score
from dipp_toolkit.evaluation.diversity import seed_diversity
from dipp_toolkit.planning.recommend import _micro_batches
from dipp_toolkit.rewards.checks.run import check_reward
from dipp_toolkit.rewards.groups import parts_of, samples_per_prompt, whole_groups
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.training.run import train
from dipp_toolkit.verify import run_verify
from tiny import PROMPTS
from tiny_runs import metrics, tiny_world

OWN = """
def brightness(images, prompts):
    return images.mean((1, 2, 3))


def steps(images, prompts):
    return (images.mean((1, 2, 3)) * 100).round().detach()
steps.differentiable = False
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return f"{path}:brightness"


def run_settings(folder: Path, **settings: Any) -> dict[str, Any]:
    """Settings of a small run on the tiny pipeline."""
    small = {"mode": "full", "eval_count": 2, "reference_steps": 1, "monitor_every": 2, "device": "cpu", "steps": 2}
    world = {"prompt_cache": folder / "cache", "precision": "fp32", **tiny_world(folder)}
    return {**world, **small, "out": folder / "run", **settings}


def batch(*sizes: int, seed: int = 0) -> tuple[Tensor, list[str]]:
    """Images of as many prompts as there are sizes, and their prompts."""
    images = torch.rand(sum(sizes), 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return images, [f"prompt {number}" for number, size in enumerate(sizes) for _ in range(size)]


def by_hand(kind: str, scores: list[float]) -> list[float]:
    """Scores within one group, by the formulas of the classes' docstrings and no tensor."""
    count = len(scores)
    mean = sum(scores) / count
    deviation = math.sqrt(sum((score - mean) ** 2 for score in scores) / (count - 1))
    if kind == "group-standard":
        return [(score - mean) / deviation for score in scores]
    if kind == "group-share":
        return [score - math.log(sum(math.exp(other) for other in scores)) for score in scores]
    return [
        sum(1 / (1 + math.exp(-(score - other) / deviation)) for j, other in enumerate(scores) if j != i) / (count - 1)
        for i, score in enumerate(scores)
    ]


@pytest.mark.parametrize("kind", ["group-rank", "group-share", "group-standard"])
def test_scores_within_groups_are_those_of_the_formula(own: str, kind: str) -> None:
    reward, (images, prompts) = load_reward(kind, of=own), batch(2, 5, 3)
    expected, plain = [], images.mean((1, 2, 3)).tolist()
    for prompt in dict.fromkeys(prompts):
        expected += by_hand(kind, [plain[i] for i in range(len(prompts)) if prompts[i] == prompt])
    assert reward(images, prompts) == pytest.approx(torch.tensor(expected, dtype=torch.float64), abs=1e-9)
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(1))
    shuffled = reward(images[order], [prompts[i] for i in order.tolist()])
    assert shuffled == pytest.approx(reward(images, prompts)[order], abs=1e-12)


def test_a_gradient_is_that_of_the_images_own_score(own: str) -> None:
    images, prompts = batch(4, 3)
    for kind in ("group-rank", "group-share", "group-standard"):
        reward = load_reward(kind, of=own)
        leaf = images.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(reward(leaf, prompts).sum(), leaf)
        plain = images.mean((1, 2, 3))
        deviation = torch.cat([plain[:4].std().expand(4), plain[4:].std().expand(3)])
        if kind == "group-standard":
            slope = 1 / deviation
        elif kind == "group-share":
            slope = 1 - reward(images, prompts).exp()
        else:
            probability = torch.sigmoid((plain[:, None] - plain[None]) / deviation[:, None])
            same = torch.tensor([[a == b for b in prompts] for a in prompts]).fill_diagonal_(False)
            slope = (probability * (1 - probability) * same).sum(1) / same.sum(1) / deviation
        assert gradient[:, 0, 0, 0] * images[0].numel() == pytest.approx(slope, rel=1e-9)


def test_where_no_image_is_better_nothing_is_said(own: str) -> None:
    images = torch.full((4, 3, 8, 8), 0.5, requires_grad=True)
    for kind, expected in (("group-rank", 0.5), ("group-share", math.log(1 / 4)), ("group-standard", 0.0)):
        scores = load_reward(kind, of=own)(images, ["one"] * 4)
        assert scores.tolist() == pytest.approx([expected] * 4)
        (gradient,) = torch.autograd.grad(scores.sum(), images)
        assert torch.isfinite(gradient).all()
        assert kind == "group-share" or not gradient.any()


@pytest.mark.parametrize(
    ("kind", "options"),
    [("group-rank", {}), ("group-rank", {"temperature": 0}), ("group-share", {}), ("group-standard", {})],
)
def test_no_number_is_not_taken_for_one(own: str, kind: str, options: dict[str, float]) -> None:
    images, prompts = batch(4, 2)
    images[1] = torch.nan
    scores = load_reward(kind, of=own, **options)(images, prompts)
    assert torch.isnan(scores[1]) and torch.isfinite(scores[4:]).all()


def test_the_rank_itself_is_the_share_that_is_beaten(tmp_path: Path, own: str) -> None:
    reward = load_reward("group-rank", of=own, temperature=0)
    assert reward.differentiable is False
    levels = torch.tensor([0.1, 0.4, 0.4, 0.9])[:, None, None, None].expand(4, 3, 8, 8)
    assert reward(levels, ["one"] * 4).tolist() == pytest.approx([0, 0.5, 0.5, 1])


def test_diversity_is_the_reports(tmp_path: Path) -> None:
    reward = load_reward("group-diversity")
    for side in (8, 96):
        images = torch.rand(3 * 4, 3, side, side)
        scores = reward(images, [f"prompt {i // 4}" for i in range(12)])
        small = torch.nn.functional.interpolate(images, size=(64, 64), mode="area") if side > 64 else images
        assert scores.mean().item() == pytest.approx(seed_diversity(small.unflatten(0, (3, 4))), rel=1e-5)
    (tmp_path / "own.py").write_text("def means(images):\n    return images.mean((2, 3))\n")
    own = load_reward("group-diversity", features=f"{tmp_path / 'own.py'}:means")
    pair = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    assert own(pair, ["one", "one"]).tolist() == pytest.approx([1, 1])


def test_the_spread_of_a_prompt_is_held_against_its_closed_form() -> None:
    rows = run_verify("integral_kl", ["groups"], ("exact",))
    assert {row.quantity for row in rows} == {"mean", "covariance", "gradient"}
    assert all(row.passed for row in rows), rows


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.integers(1, 12))
def test_no_part_of_a_batch_cuts_a_group(sizes: list[int], size: int) -> None:
    prompts = [str(number) for number, count in enumerate(sizes) for _ in range(count)]
    parts = list(whole_groups(prompts, size))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(len(prompts)))
    seen = [set(prompts[part]) for part in parts]
    assert all(not one & other for one, other in itertools.combinations(seen, 2))
    assert all(part.stop - part.start >= min(size, len(prompts) - part.start) for part in parts)


def test_an_image_alone_and_options_that_cannot_be_used_are_refused(own: str) -> None:
    images, prompts = batch(2, 1)
    with pytest.raises(RequestError, match=r"'prompt 1' came with one image.*noises_per_prompt=4"):
        load_reward("group-rank", of=own)(images, prompts)
    for name, options, words in (
        ("group-rank", {}, "name that with --set reward.group-rank.of=pickscore"),
        ("group-rank", {"of": own, "temperature": -1}, "a number 0 or more"),
        ("group-share", {"of": own, "temperature": 0}, "a number above 0"),
        ("group-standard", {"of": own, "samples": 1}, "2 or more"),
        ("group-diversity", {"samples": 0}, "2 or more"),
        ("group-standard", {"of": "group-diversity"}, "scores images one by one"),
        ("group-standard", {"of": "no-such"}, "no-such"),
        ("group-standard", {"of": own, "options": 3}, "options"),
        ("group-diversity", {"features": ""}, "expected pixels, or a function"),
        ("ensemble", {"members": "group-diversity+sharpness"}, "An ensemble scores images one by one"),
    ):
        with pytest.raises(RequestError, match=words):
            load_reward(name, **options)


def test_a_comparison_gives_whole_groups(own: str) -> None:
    reward, (images, prompts) = load_reward("group-standard", of=own), batch(4, 4, 4)
    whole = reward(images, prompts)
    assert score(reward, images, prompts, batch=3) == pytest.approx(whole, abs=1e-9)
    assert [part.stop - part.start for part in parts_of(reward, prompts, 3)] == [4, 4, 4]
    assert samples_per_prompt(load_reward(own)) == 1


@pytest.mark.first_case
@pytest.mark.parametrize("extra", [{}, {"reward_batch": 5}, {"balance": "normalised"}], ids=str)
def test_a_run_trains_by_groups_and_goes_on(tmp_path: Path, own: str, extra: dict[str, object]) -> None:
    rewards = {"group-standard": 1.0, "group-diversity": 0.5}
    options = {"group-standard": {"of": own}}
    given_settings = {"rewards": rewards, "reward_options": options, "batch_size": 8, "reward_scale": 5.0, **extra}
    whole = train(TrainConfig(**run_settings(tmp_path, out=tmp_path / "whole", steps=4, **given_settings)))
    rows = metrics(whole.folder)
    assert all(abs(row["reward/group-standard"]) < 1e-4 for row in rows)  # the mean of standardised scores
    assert all(row["reward/group-diversity"] > 0 for row in rows)
    part = {**given_settings, "checkpoint_every": 2}
    train(TrainConfig(**run_settings(tmp_path, out=tmp_path / "part", **{**part, "steps": 2})))
    train(TrainConfig(**run_settings(tmp_path, out=tmp_path / "part", **{**part, "steps": 4}, resume=True)))
    again = metrics(tmp_path / "part")
    assert [row["reward/group-diversity"] for row in again] == [row["reward/group-diversity"] for row in rows]


@pytest.mark.parametrize("size", [0, 4, 5])
def test_draws_of_a_policy_gradient_are_compared_draw_by_draw(tmp_path: Path, own: str, size: int) -> None:
    settings_given = {
        "rewards": {"group-standard": 1.0}, "reward_options": {"group-standard": {"of": own}}, "batch_size": 8,
        "term": "policy_gradient", "term_options": {"policy_gradient": {"group": 2}}, "reward_batch": size,
    }  # fmt: skip
    run = train(TrainConfig(**run_settings(tmp_path, **settings_given)))
    # Each draw of a prompt's four images is a group, whose standardised scores have the mean 0.
    assert all(abs(row["reward/group-standard"]) < 1e-4 for row in metrics(run.folder))


def test_a_function_says_that_it_compares_images(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        "def apart(images, prompts):\n    assert all(prompts.count(one) > 1 for one in prompts)\n"
        "    return (images - images.mean(0)).square().mean((1, 2, 3))\napart.samples_per_prompt = 3\n"
    )
    name = f"{path}:apart"
    assert samples_per_prompt(load_reward(name)) == 3
    train(TrainConfig(**run_settings(tmp_path, rewards={name: 1.0}, batch_size=6, judge=None, eval_seeds=3)))
    path.write_text(path.read_text().replace("= 3", "= 'three'"))
    with pytest.raises(RequestError, match="expected a whole number, 2 or more"):
        samples_per_prompt(load_reward(name))


def test_a_plan_keeps_groups_whole() -> None:
    config = TrainConfig(rewards={"group-diversity": 1.0}, batch_size=16)
    assert list(_micro_batches(config)) == [8, 4]
    eight = config.model_copy(update={"reward_options": {"group-diversity": {"samples": 8}}})
    assert list(_micro_batches(eight)) == [8]


def test_a_rank_without_gradient_trains_by_smoothing_and_not_by_a_surrogate(tmp_path: Path, own: str) -> None:
    options = {"group-rank": {"of": own.replace("brightness", "steps"), "temperature": 0}}
    shared = {"rewards": {"group-rank": 1.0}, "reward_options": options, "batch_size": 4, "steps": 2}
    with pytest.raises(Exception, match="train with black_box=smoothing"):
        train(TrainConfig(**run_settings(tmp_path, out=tmp_path / "a", **shared)))
    train(TrainConfig(**run_settings(tmp_path, out=tmp_path / "b", black_box="smoothing", **shared)))


@pytest.mark.parametrize(
    ("settings_given", "words"),
    [
        ({"batch_size": 6}, "A batch of 6 cuts groups of 4 images of one prompt.*multiple of 4, such as 8"),
        ({"batch_size": 8, "noises_per_prompt": 1}, "has no images of one prompt to compare"),
        ({"batch_size": 8, "noises_per_prompt": 3}, "A batch of 8 cuts groups of 3"),
    ],
)
def test_a_batch_that_cuts_groups_is_refused(tmp_path: Path, settings_given: dict[str, int], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        train(TrainConfig(**run_settings(tmp_path, rewards={"group-diversity": 1.0}, **settings_given)))


def test_what_scores_images_one_by_one_refuses_groups(
    tmp_path: Path, own: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    words = ["score", str(tmp_path / "a.png"), "--prompt", PROMPTS[0], "--reward", "group-diversity"]
    assert main(words) == 2
    assert "scores images one by one" in capsys.readouterr().err
    assert main(["reward", "serve", "group-diversity", "--port", "0"]) == 2
    assert "scores images one by one" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["group-standard", "group-rank", "group-share"])
def test_a_check_passes_over_what_a_reward_holds_fixed(own: str, name: str) -> None:
    rows = {row.name: row for row in check_reward(load_reward(name, of=own), name, size=16, seconds=0.05)}
    assert rows["gradient is right"].status == "skipped"
    assert not [row for row in rows.values() if row.status == "failed"]


def test_a_check_looks_at_an_image_beside_a_companion() -> None:
    rows = {
        row.name: row for row in check_reward(load_reward("group-diversity"), "group-diversity", size=16, seconds=0.05)
    }
    assert rows["own image alone"].status == "ok"
    assert rows["gradient is right"].status == "ok"
    assert not [row for row in rows.values() if row.status == "failed"]
