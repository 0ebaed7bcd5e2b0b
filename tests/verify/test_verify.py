"""The closed forms themselves, the engine's way to them, and that a mistake in the gradient is noticed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.distributions import kl_divergence

from dipp_toolkit.diffusion.schedules import FlowMatching
from dipp_toolkit.errors import RequestError, RunError
from dipp_toolkit.objective.gaussians import Gaussian, QuadraticReward
from dipp_toolkit.objective.terms.integral_kl import IntegralKL
from dipp_toolkit.protocols import Generator, Reference, Reward
from dipp_toolkit.verify import CASES, Case, VerifyRow, run_verify
from dipp_toolkit.verify.cases import grid, make_generator, make_reference
from dipp_toolkit.verify.quadrature import Enumeration, QuadratureEngine
from dipp_toolkit.verify.runner import run_case
from dipp_toolkit.verify.world import AffineGenerator, ExactAssistant
from mutations import MUTATIONS

PREDICTIONS = ("epsilon", "v_prediction", "sample", "velocity")

TERM_FILE = """
from dataclasses import dataclass
from dipp_toolkit.objective.terms.integral_kl import IntegralKL

def mine(context):
    return IntegralKL.build(context)

@dataclass
class Fixed:
    def __call__(self, sample):
        raise AssertionError("never called")

def without_sampling(context):
    return Fixed()
"""


def mean_reward(reward: QuadraticReward, law: Gaussian) -> torch.Tensor:
    """E r(x) for x of a Gaussian law."""
    offset = law.mean - reward.centre
    quadratic = offset @ reward.curvature @ offset + (reward.curvature @ law.covariance).trace()
    return reward.slope @ law.mean - quadratic / 2


def objective(case: Case, law: Gaussian) -> torch.Tensor:
    """-alpha_rew E r + average over the grid of KL(p_t || q_t), by torch.distributions."""
    reference, times = make_reference(), grid()
    alpha, sigma = reference.schedule.alpha(times), reference.schedule.sigma(times)
    divergence = kl_divergence(law.noised(alpha, sigma), reference.guided(case.guidance).noised(alpha, sigma)).mean()
    return divergence if case.reward is None else divergence - case.reward_scale * mean_reward(case.reward, law)


def rows_of(name: str, assistant: str) -> list[VerifyRow]:
    return run_verify("integral_kl", cases=[name], assistants=[assistant])


first_rows_of = cache(rows_of)
"""Those of the first time, for tests that change nothing."""


def plain(case: Case) -> Gaussian:
    """The optimum of the integral KL."""
    reference = make_reference()
    return case.optimum(IntegralKL(reference, ExactAssistant(make_generator(), reference.schedule)), reference)


@pytest.mark.parametrize("name", ["distillation", "linear", "slight", "quadratic", "guidance"])
def test_optima_are_stationary_and_lowest(name: str) -> None:
    case = CASES[name]
    best = plain(case)
    mean, covariance = best.mean.clone().requires_grad_(True), best.covariance.clone().requires_grad_(True)
    for slope in torch.autograd.grad(objective(case, Gaussian(mean, covariance)), [mean, covariance]):
        assert (slope + slope.mT if slope.ndim == 2 else slope).abs().max() < 1e-8
    lowest = objective(case, best)
    for index in range(3):
        step = torch.zeros(3, dtype=torch.float64).index_fill(0, torch.tensor(index), 0.05)
        assert objective(case, Gaussian(best.mean + step, best.covariance)) > lowest
        assert objective(case, Gaussian(best.mean, best.covariance + step.diag())) > lowest


def test_optima_of_the_integral_kl_are_those_of_the_formulas() -> None:
    reference, times = make_reference(), grid()
    alpha, sigma = reference.schedule.alpha(times), reference.schedule.sigma(times)
    target = reference.guided(1.0)

    def information(covariance: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        precision = torch.linalg.inv(Gaussian(target.mean, covariance).noised_covariance(alpha, sigma))
        return ((weights * alpha.square())[:, None, None] * precision).mean(0)

    for name, weights in (("linear", torch.ones_like(alpha)), ("snr", (sigma / alpha).square())):
        case = CASES[name]
        best, reward = plain(case), case.reward
        assert reward is not None
        m = information(target.covariance, weights)
        torch.testing.assert_close(best.mean, target.mean + case.reward_scale * torch.linalg.solve(m, reward.slope))
        torch.testing.assert_close(best.covariance, target.covariance)
    case = CASES["quadratic"]
    best, reward, scale, ones = plain(case), case.reward, case.reward_scale, torch.ones_like(alpha)
    assert reward is not None
    m, q = information(target.covariance, ones), reward.curvature
    pull = scale * (reward.slope - q @ (target.mean - reward.centre))
    torch.testing.assert_close((m + scale * q) @ (best.mean - target.mean), pull)
    torch.testing.assert_close(scale * q + m, information(best.covariance, ones))
    alone = plain(CASES["guidance"])
    torch.testing.assert_close(alone.mean, reference.empty.mean + 2.5 * (reference.given.mean - reference.empty.mean))
    torch.testing.assert_close(alone.covariance, reference.empty.covariance)


def test_reward_case_moves_the_optimum_and_quadratic_the_covariance() -> None:
    """Otherwise the rows could pass without a reward."""
    distilled, linear, quadratic = (plain(CASES[name]) for name in ("distillation", "linear", "quadratic"))
    assert (linear.mean - distilled.mean).norm() > 0.5 * distilled.mean.norm()
    assert (quadratic.mean - distilled.mean).norm() > 0.5 * distilled.mean.norm()
    assert (quadratic.covariance - distilled.covariance).norm() > 0.2 * distilled.covariance.norm()
    torch.testing.assert_close(linear.covariance, distilled.covariance, rtol=1e-6, atol=1e-8)


def test_the_gaussian_world_fills_the_roles(tmp_path: Path) -> None:
    reference, generator = make_reference(), make_generator()
    assert isinstance(reference, Reference)
    assert isinstance(generator, Generator)
    assert isinstance(CASES["linear"].reward, Reward)
    condition = reference.encode(["a", "", "b"])
    noise = torch.randn(3, 3, 1, 1, dtype=torch.float64)
    assert reference.decode(generator.generate(noise, condition)).shape == (3, 3, 1, 1)
    drawn = reference.sample(
        reference.encode(["a"] * 20000), torch.randn(20000, 3, 1, 1).double(), steps=1, guidance=2.0
    )
    torch.testing.assert_close(drawn.flatten(1).mean(0), reference.guided(2.0).mean, atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.flatten(1).T.cov(), reference.given.covariance, atol=0.05, rtol=0)
    generator.save_pretrained(tmp_path / "saved")
    again = AffineGenerator.load_pretrained(tmp_path / "saved")
    assert torch.equal(again.law.covariance, generator.law.covariance) and again.latent_shape == (3, 1, 1)


@pytest.mark.parametrize("name", CASES)
def test_exact_assistant_reaches_every_optimum(name: str) -> None:
    rows = first_rows_of(name, "exact")
    assert [row.quantity for row in rows] == ["mean", "covariance", "gradient"]
    for row in rows:
        assert row.tolerance == (1e-4 if row.quantity == "gradient" else 0.002)
        assert row.passed, row


SHOWN_BY_OTHERS = ("distillation", "slight", "snr")
"""Cases that differ from the others by a number of the objective, not by what an assistant has to learn."""


@pytest.mark.first_case
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.exhaustive) if name in SHOWN_BY_OTHERS else name for name in CASES]
)
def test_learned_assistant_reaches_every_optimum(name: str) -> None:
    for row in rows_of(name, "learned"):
        assert row.tolerance == 0.02
        assert row.passed, row


@pytest.mark.first_case
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_optima_are_reached_on_the_straight_line_with_every_prediction(prediction: str) -> None:
    reference = make_reference(FlowMatching(shift=2.0), prediction)
    for row in run_case(CASES["quadratic"], "integral_kl", "exact", reference=reference):
        assert row.passed, row


@pytest.mark.first_case
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mistakes_in_the_gradient_fail_the_verification(monkeypatch: pytest.MonkeyPatch, mutation: Callable) -> None:
    mutation(monkeypatch)
    for name in ("linear", "quadratic"):
        worst = max(rows_of(name, "exact"), key=lambda row: row.error)
        assert not worst.passed
        assert worst.error > 0.05


def test_the_same_seed_gives_the_same_rows() -> None:
    assert rows_of("linear", "exact") == first_rows_of("linear", "exact")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"term": "integral_lk"}, "Did you mean 'integral_kl'"),
        ({"cases": ["quadratik"]}, "Did you mean 'quadratic'"),
        ({"assistants": ["lerned"]}, "Did you mean 'learned'"),
        ({"term": "missing.py:term"}, "There is no file missing.py"),
    ],
)
def test_unknown_names_are_sentences(arguments: dict, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        run_verify(**arguments)


def test_a_term_of_ones_own_file_is_verified(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(TERM_FILE)
    rows = run_verify(f"{file}:mine", cases=["guidance"], assistants=["exact"])
    assert all(row.passed for row in rows)
    with pytest.raises(RequestError, match="field `sampling`"):
        run_verify(f"{file}:without_sampling", cases=["guidance"], assistants=["exact"])


REFERENCE_FILE = """
import torch
from dipp_toolkit.diffusion.schedules import FlowMatching
from dipp_toolkit.verify import Gaussian, GaussianReference

def law(mean, size=3):
    return Gaussian(torch.full((size,), mean, dtype=torch.float64), 0.5 * torch.eye(size, dtype=torch.float64))

def mine():
    return GaussianReference(law(0.0), law(1.0), FlowMatching(shift=3.0), prediction="velocity")

def large():
    return GaussianReference(law(0.0, 4), law(1.0, 4), FlowMatching())
"""


def test_a_reference_of_ones_own_file_is_verified_against(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(REFERENCE_FILE)
    rows = run_verify("integral_kl", cases=["guidance"], reference=f"{file}:mine")
    assert [row.assistant for row in rows] == ["exact"] * 3 and all(row.passed for row in rows)
    assert rows[0].expected == pytest.approx([2.5, 2.5, 2.5], abs=1e-6)
    with pytest.raises(RequestError, match="GaussianReference of 3 numbers"):
        run_verify("integral_kl", cases=["guidance"], reference=f"{file}:large")


def test_rows_are_json_even_where_a_run_went_to_infinity() -> None:
    good = VerifyRow.compare("c", "t", "exact", "mean", torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]), 0.2)
    assert good.error == pytest.approx(0.1)
    assert json.loads(json.dumps(good.as_dict(), allow_nan=False))["passed"] is True
    bad = VerifyRow.compare("c", "t", "exact", "mean", torch.tensor([3.0, 4.0]), torch.tensor([math.nan, 4.0]), 0.2)
    assert not bad.passed
    assert json.loads(json.dumps(bad.as_dict(), allow_nan=False))["reached"] == [None, 4.0]


def test_an_enumeration_has_exact_moments() -> None:
    reference, generator = make_reference(), make_generator()
    for nodes, rows in ((2, 640), (3, 7290)):
        every = Enumeration(grid(), 3, nodes)
        assert every.rows == rows
        assert every.weights.mean().item() == pytest.approx(1)
        optimizer = torch.optim.SGD(generator.network.parameters(), lr=0.1)
        assistant = ExactAssistant(generator, reference.schedule)
        engine = QuadratureEngine(generator, optimizer, assistant, [], torch.Generator(), 0, enumeration=every)
        noise = engine.draw_noise(rows)
        draw = every(noise, torch.Generator())
        weights, both = every.weights / rows, torch.cat([noise.flatten(1), draw.noise.flatten(1)], 1)
        torch.testing.assert_close(weights @ both, torch.zeros(6).double())
        torch.testing.assert_close(torch.einsum("b,bi,bj->ij", weights, both, both), torch.eye(6).double())
        for t in grid():
            assert weights[draw.t == t].sum().item() == pytest.approx(0.1)
    with pytest.raises(RunError, match="7290 rows needs a batch of as many; got 100"):
        engine.draw_noise(100)
    with pytest.raises(RunError, match="7290 rows needs a batch of as many; got 30"):
        every(noise[:30], torch.Generator())


def test_a_time_off_the_grid_is_refused() -> None:
    reference = make_reference(FlowMatching())
    x_t = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
    with pytest.raises(RunError, match="outside the Gaussian world's grid"):
        reference.denoiser.predict_x0(x_t, torch.tensor([0.123], dtype=torch.float64), reference.encode(["a"]))
