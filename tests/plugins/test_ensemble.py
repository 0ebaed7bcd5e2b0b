"""An ensemble is its members' mean minus their disagreement, and a run watches that they go on agreeing."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_ensemble.reward import Ensemble
from dipp_toolkit import TrainConfig
from dipp_toolkit.errors import RequestError
from dipp_toolkit.monitoring.agreement import Agreement, agreements
from dipp_toolkit.monitoring.monitors import find_warnings
from dipp_toolkit.monitoring.snapshot import Snapshot
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.training.run import train
from tiny_runs import tiny_world

IMAGES = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(4))
PROMPTS = ["a cat"] * 5
UNITS = {"colourfulness": [0.3, 0.1], "sharpness": [0.02, 0.01]}


def both(**options: Any) -> Ensemble:
    return Ensemble("colourfulness+sharpness", units=UNITS, **options)


def standardised() -> Tensor:
    scores = [load_reward(name)(IMAGES, PROMPTS).double() for name in UNITS]
    return torch.stack(
        [(score - level) / spread for score, (level, spread) in zip(scores, UNITS.values(), strict=True)]
    )


@pytest.mark.parametrize("k", [0.0, 1.0, 2.5])
def test_it_is_the_mean_minus_k_deviations(k: float) -> None:
    z = standardised()
    expected = z.mean(0) - k * z.std(0)
    torch.testing.assert_close(both(k=k)(IMAGES, PROMPTS).double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both().doubt(IMAGES, PROMPTS).double(), z.std(0), rtol=1e-4, atol=1e-4)


def test_its_gradient_is_that_of_the_formula() -> None:
    r"""$\partial r = \sum_i (1/n - k (z_i - \bar z) / ((n - 1) s))\, \partial r_i / d_i$."""
    images = IMAGES.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(both(k=1.5)(images, PROMPTS).sum(), images)
    z, expected = standardised(), torch.zeros_like(IMAGES, dtype=torch.float64)
    for own, (name, (_, spread)) in zip(z, UNITS.items(), strict=True):
        (gradient,) = torch.autograd.grad(load_reward(name)(images, PROMPTS).sum(), images)
        share = 1 / 2 - 1.5 * (own - z.mean(0)) / z.std(0)
        expected += share[:, None, None, None] * gradient.double() / spread
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


def test_members_that_agree_to_the_bit_have_a_gradient() -> None:
    ensemble = Ensemble("sharpness+colourfulness", units={"sharpness": [0, 1], "colourfulness": [0, 1]})
    ensemble.members[1] = ensemble.members[0]
    images = IMAGES.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(ensemble(images, PROMPTS).sum(), images)
    (alone,) = torch.autograd.grad(ensemble.members[0](images, PROMPTS).sum(), images)
    torch.testing.assert_close(found, alone)


def test_whether_it_is_differentiable_is_its_members_word() -> None:
    assert both().differentiable is True
    assert Ensemble("jpeg+sharpness", units={"jpeg": [0, 1], "sharpness": [0, 1]}).differentiable is False


def test_its_identity_is_that_of_members_units_and_k() -> None:
    assert both().score_identity() == both().score_identity()
    turned = Ensemble("sharpness+colourfulness", units=UNITS)
    assert len({one.score_identity() for one in (both(), both(k=2), turned)}) == 3


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "An ensemble has two members or more, each once, as in members=hps+imagereward"),
        ({"members": "sharpness"}, "two members or more"),
        ({"members": "sharpness+sharpness"}, "each once"),
        ({"members": "sharpness+sharpnes"}, "Did you mean 'sharpness'?"),
        ({"members": "sharpness+colourfulness"}, "are of several kinds"),
        ({"members": "sharpness+colourfulness", "units": {"sharpness": [0, 1]}}, "member 'colourfulness' are None"),
        (
            {"members": "sharpness+colourfulness", "units": {"sharpness": [0, 0], "colourfulness": [0, 1]}},
            "its mean and",
        ),
        ({"members": "sharpness+colourfulness", "units": {"hps": [0, 1]}}, "expected a value for each of sharpness"),
        ({"members": "sharpness+colourfulness", "k": -1, "units": UNITS}, "option k of the reward 'ensemble' is -1"),
    ],
)
def test_what_is_no_ensemble_is_a_sentence(options: dict[str, Any], why: str) -> None:
    with pytest.raises(RequestError, match=re.escape(why)):
        load_reward("ensemble", **options)


@dataclass
class Unsure:
    """A reward whose doubt grows with the brightness."""

    differentiable = True

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return images.mean((1, 2, 3))

    def doubt(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return images.mean((1, 2, 3))


def test_doubt_that_grows_while_the_reward_rises_is_over_optimisation() -> None:
    watched = agreements({"unsure": Unsure(), "sharpness": load_reward("sharpness")})
    assert list(watched) == ["agreement/unsure"] and isinstance(watched["agreement/unsure"], Agreement)
    torch.testing.assert_close(watched["agreement/unsure"](IMAGES, PROMPTS), -IMAGES.mean((1, 2, 3)))

    def snapshot(reward: float, agreement: float) -> Snapshot:
        some = torch.linspace(0, 1, 16, dtype=torch.float64)
        rewards = {"unsure": some + reward, "agreement/unsure": some + agreement}
        return Snapshot(rewards, None, some * 0, some * 0, some * 0)

    (warning,) = find_warnings(snapshot(1.0, -0.5), snapshot(0, 0), {"unsure": 1.0})
    assert warning.name == "over-optimisation" and "agreement/unsure fell by 0.5" in warning.text
    assert find_warnings(snapshot(1.0, 0.5), snapshot(0, 0), {"unsure": 1.0}) == []
    assert find_warnings(snapshot(1.0, -0.01), snapshot(0, 0), {"unsure": 1.0}) == []


def test_a_run_watches_the_agreement_of_its_ensemble(tmp_path: Path) -> None:
    options = {"ensemble": {"members": "colourfulness+sharpness", "units": UNITS}}
    shared = {"judge": None, "eval_count": 8, "reference_steps": 1, "monitor_every": 1, "diagnose_every": 0}
    settings = tiny_world(tmp_path) | shared | {"steps": 2, "batch_size": 2, "rewards": {"ensemble": 1.0}}
    train(TrainConfig(**settings, reward_options=options, out=tmp_path / "run"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "monitors.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all(row["rewards"]["agreement/ensemble"]["mean"] <= 0 for row in rows)
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all("reward/ensemble" in row for row in log)
