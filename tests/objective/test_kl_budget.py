"""A KL budget: where its controller ends, how it gets there, when it rests, and what it is refused with."""

from __future__ import annotations

import math
import random
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_toolkit import RequestError, TrainConfig
from dipp_toolkit.config import make_config
from dipp_toolkit.distributed import Processes
from dipp_toolkit.errors import Interrupted, RunError
from dipp_toolkit.objective.base import TermResult
from dipp_toolkit.objective.gaussians import Gaussian
from dipp_toolkit.objective.mixing import kl_budget
from dipp_toolkit.objective.mixing.kl_budget import LARGEST, REST, KLBudget
from dipp_toolkit.objective.mixing.mix import RewardMix
from dipp_toolkit.objective.mixing.scale import RewardScale
from dipp_toolkit.training.run import train
from dipp_toolkit.training.setup.resolve import resolve
from dipp_toolkit.utils.piecewise_linear import PiecewiseLinear
from dipp_toolkit.verify.budget_rows import BUDGET, budget_rows, scale_for
from dipp_toolkit.verify.cases import CASES, gradient, make_reference
from dipp_toolkit.verify.kl_rows import TIMES, closed_form_kl, schedules
from tiny_runs import BLUE, StopAt, assert_same_bits, blue_settings, metrics

YES, NO = torch.tensor(True), torch.tensor(False)


def told(budget: KLBudget, kl: float, pulls: Tensor = YES) -> float:
    """The factor after an update in which a KL was measured."""
    budget.note(torch.tensor(kl), pulls)
    budget.commit()
    return float(budget.factor)


def generator_under(start: float, slowness: float) -> list[float]:
    """KL in budgets over 600 updates of a generator whose distance follows the scale, and is measured with noise."""
    budget, distance, noise, seen = KLBudget(1.0), 0.01, random.Random(0), []
    for _ in range(600):
        distance += (start * float(budget.factor) - distance) / slowness
        told(budget, distance**2 * math.exp(noise.gauss(0, 0.2)))
        seen.append(distance**2)
    return seen


@pytest.mark.parametrize("slowness", [10, 50, 150])
@pytest.mark.parametrize("start", [0.1, 1.0, 10.0])
def test_generators_fast_and_slow_end_at_the_budget_without_a_swing(start: float, slowness: float) -> None:
    seen = generator_under(start, slowness)
    assert sum(seen[-100:]) / 100 == pytest.approx(1, rel=0.08)
    assert min(seen[-100:]) > 0.85 and max(seen[-100:]) < 1.15
    if start <= 1:
        assert max(seen) < 1.25


def test_the_integral_alone_would_swing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kl_budget, "PROPORTIONAL", 0.0)
    assert max(generator_under(0.1, 150)) > 2


def test_it_rests_at_first_and_leaves_without_a_jump() -> None:
    budget = KLBudget(1.0)
    assert [told(budget, 0.5) for _ in range(REST)] == [1.0] * REST
    factors = [told(budget, 0.5) for _ in range(3)]
    growth = math.exp(kl_budget.RATE * math.log(2))
    assert factors == pytest.approx([growth, growth**2, growth**3])


def test_it_moves_by_what_counts_and_by_nothing_else() -> None:
    budget = KLBudget(1.0)
    for _ in range(REST + 5):
        told(budget, 2.0)
    before = dict(budget.state_dict())
    budget.note(torch.tensor(9.0), YES)
    budget.discard()
    budget.commit()
    assert budget.state_dict() == before
    told(budget, math.nan)
    assert {name: float(value) for name, value in budget.state_dict().items()} == {
        name: float(value) for name, value in before.items()
    }
    resting = KLBudget(1.0)
    for _ in range(REST + 5):
        told(resting, 2.0)
    integral = float(resting.integral)
    told(resting, 2.0, NO)
    assert float(resting.integral) == integral, "rewards without a gradient are no reason to scale them up"


@pytest.mark.parametrize(("kl", "bound"), [(0.0, LARGEST), (50.0, 1 / LARGEST)])
def test_a_budget_that_cannot_be_held_ends_at_a_bound(kl: float, bound: float) -> None:
    budget = KLBudget(1.0)
    for _ in range(400):
        factor = told(budget, kl)
    assert factor == pytest.approx(bound)


class OtherProcess(Processes):
    """Shares a batch with one that measured 3 times as much."""

    def mean(self, value: Tensor) -> Tensor:
        return torch.stack([value, value * torch.tensor([3.0, 1.0], dtype=value.dtype)]).mean(0)


def test_passes_and_processes_make_one_update() -> None:
    parts, whole = KLBudget(1.0, OtherProcess()), KLBudget(1.0)
    for step in range(REST + 9):
        for kl in (0.2 + 0.01 * step, 0.4):
            parts.note(torch.tensor(kl), YES)
        parts.commit()
        told(whole, 2 * (0.2 + 0.01 * step + 0.4) / 2)
    assert float(parts.kl) == pytest.approx(float(whole.kl), rel=1e-6)
    assert float(parts.factor) == pytest.approx(float(whole.factor), rel=1e-6)


@dataclass
class Pass:
    """A pass of a mix with one reward of fixed gradients."""

    mix: RewardMix

    def __call__(self, step: int = 0, kl: Tensor | None = None) -> Tensor:
        grad = torch.ones(4, 3)
        answers = {"a": TermResult(torch.arange(4.0), grad)}
        return self.mix(answers, {"a": 2.0}, grad, torch.Generator(), 0.5 * grad, step, kl).added["a"]


@pytest.mark.parametrize(("pull", "plain"), [(None, 2.0), (0.7, 0.35)])
def test_schedule_and_budget_multiply_a_scale_and_a_pull(pull: float | None, plain: float) -> None:
    budget = KLBudget(1.0)
    one = Pass(RewardMix(scale=RewardScale(pull, PiecewiseLinear(((0, 0.0), (10, 1.0))), budget)))
    assert (one(0, torch.tensor(1.0)) == 0).all()
    torch.testing.assert_close(one(5, torch.tensor(1.0)), torch.full((4, 3), plain / 2))
    one.mix.commit()
    for step in range(100):
        one(step, torch.tensor(0.1))
        one.mix.commit()
    assert float(budget.pulled) == 90, "the controller waits for the schedule's peak"
    factor = float(budget.factor)
    assert factor > 2
    torch.testing.assert_close(one(200, torch.tensor(1.0)), torch.full((4, 3), plain * factor))
    if pull is not None:
        assert one.mix.scale.held() == pytest.approx(plain), "neither is part of what was measured"


def test_a_divergence_that_reports_no_kl_is_named() -> None:
    with pytest.raises(RunError, match=r"kl_budget.*'kl'"):
        Pass(RewardMix(scale=RewardScale(budget=KLBudget(0.1))))()


def test_the_scale_of_a_budget_is_that_of_the_optimum() -> None:
    """At the scale the closed form names, the objective is stationary where the KL is the budget."""
    case, schedule, law = CASES["linear"], schedules()["flow"], make_reference().given
    assert case.reward is not None
    scale = scale_for(BUDGET, law, case.reward.slope, schedule, *TIMES)

    def objective(at: Any, drawn: Any) -> Tensor:
        return len(law.mean) * closed_form_kl(at, law, schedule, *TIMES) - scale * at.mean @ case.reward.slope  # type: ignore[union-attr]

    # The KL is quadratic in the mean: one Newton step from the reference is the optimum.
    slope, _ = gradient(objective, law)
    moved = [Gaussian(law.mean + unit, law.covariance) for unit in torch.eye(3, dtype=torch.float64)]
    rows = [gradient(objective, item)[0] - slope for item in moved]
    best = Gaussian(law.mean - torch.linalg.solve(torch.stack(rows), slope), law.covariance)
    assert closed_form_kl(best, law, schedule, *TIMES).item() == pytest.approx(BUDGET, rel=1e-6)


@pytest.mark.exhaustive
def test_a_gaussian_generator_ends_at_the_budget_from_either_side() -> None:
    rows = budget_rows()
    assert len(rows) == 4 and all(row.passed for row in rows), rows


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("world")
    return blue_settings(folder, BLUE, eval_count=2, checkpoint_every=20)


def test_a_run_with_a_budget_and_schedules_resumes_to_the_bit_and_reports_it(
    world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kl_budget, "REST", 1)
    more: dict[str, Any] = {"kl_budget": 0.5, "scale_schedule": "0:0.5,2:1", "reward_scale": 3.0}
    more["guidance_schedule"] = "0:1,4:3"

    def run(name: str, *listeners: object, **others: Any) -> Path:
        return train(TrainConfig(**world | more | {"out": tmp_path / name} | others), listeners=listeners).folder

    whole = run("whole")
    with pytest.raises(Interrupted):
        run("parts", StopAt(4, signal.SIGTERM))
    assert_same_bits(whole, run("parts", resume=True), 6)
    rows = metrics(whole)
    assert [row["scale_factor"] for row in rows] == [0.5, 0.75, 1, 1, 1, 1]
    assert rows[0]["kl_factor"] == rows[2]["kl_factor"] == 1 != rows[-1]["kl_factor"]
    assert [row["guidance"] for row in rows] == [1, 1.5, 2, 2.5, 3, 3]
    assert resolve(make_config(world | {"generator": str(whole)})).guidance == 3
    page = (whole / "report.html").read_text()
    for text in ("KL budget", "0.5 nats a dimension", "Factors of the rewards", "0:0.5,2:1", "0:1,4:3"):
        assert text in page


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rewards": {}}, "kl_budget changes the scale of the rewards, and this run has no rewards.*--reward"),
        (
            {"rewards": {}, "kl_budget": None, "scale_schedule": "0:0,9:1"},
            "scale_schedule changes the scale of the rewards, and this run has no rewards",
        ),
        ({"term": "reward_only"}, "'reward_only' is not a divergence.*add integral_kl"),
        ({"term": "diffused_reward"}, "'diffused_reward' has the rewards inside.*integral_kl"),
        ({"reward_scale": 0.0}, "reward_scale is 0.*pull=0.7"),
        ({"kl_budget": 0.0}, "kl_budget cannot be 0"),
        ({"kl_budget": "far"}, "kl_budget cannot be 'far': expected a number"),
    ],
)
def test_what_a_budget_is_refused_with(world: dict[str, Any], settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        resolve(make_config(world | {"kl_budget": 0.1} | settings))


def test_terms_that_can_hold_a_budget_are_not_refused(world: dict[str, Any]) -> None:
    for term in ("score_divergence", "integral_kl,policy_gradient"):
        assert resolve(make_config(world | {"kl_budget": 0.1, "term": term})).kl_budget == 0.1
