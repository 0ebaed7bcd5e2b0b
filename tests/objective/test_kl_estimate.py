"""The integral KL in nats that divergences report: its ingredients, its closed form, and what it does not depend on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.diffusion.schedules import FlowMatching, Schedule, VariancePreserving, schedule_from_config
from dipp_toolkit.diffusion.times import WEIGHTINGS, Draw, LogitNormalTimes, TimeLaw, UniformTimes, uniform
from dipp_toolkit.objective.base import Sample
from dipp_toolkit.objective.gaussians import Gaussian
from dipp_toolkit.objective.terms import kl_estimate as estimates
from dipp_toolkit.objective.terms.diffused_reward import DiffusedReward
from dipp_toolkit.objective.terms.divergence import Divergence
from dipp_toolkit.objective.terms.f_divergence import FDivergence, GaussianRatio
from dipp_toolkit.objective.terms.integral_kl import IntegralKL
from dipp_toolkit.objective.terms.kl_estimate import kl_weight
from dipp_toolkit.objective.terms.score_divergence import ScoreDivergence
from dipp_toolkit.verify import kl_rows as kl_rows_module
from dipp_toolkit.verify import run_verify
from dipp_toolkit.verify.kl_rows import closed_form_kl, kl_rows, schedules
from dipp_toolkit.verify.world import AffineGenerator, AffineMap, AnyTimeReference, ExactAssistant

GENERATOR = AffineGenerator(
    AffineMap(
        torch.tensor([[0.8, 0.1], [0.2, 0.5]], dtype=torch.float64), torch.tensor([0.4, -0.2], dtype=torch.float64)
    )
)
LAW = GENERATOR.law
TARGET = Gaussian(torch.tensor([0.0, 0.1], dtype=torch.float64), torch.tensor([[1.0, -0.1], [-0.1, 0.5]]).double())

SCHEDULES = {
    **schedules(),
    "cosine": schedule_from_config({"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2"}),
    "zero terminal SNR": schedule_from_config(
        {"_class_name": "DDPMScheduler", "beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True}
    ),
    "plain flow": FlowMatching(),
}


def term_of(kind: type[Divergence] = IntegralKL, schedule: Schedule | None = None, **others: object) -> Divergence:
    """A divergence on the two laws, both scores exact."""
    schedule = schedule or SCHEDULES["flow"]
    reference = AnyTimeReference(TARGET, TARGET, schedule, torch.zeros(1))
    return kind(reference, ExactAssistant(GENERATOR, schedule), **others)  # type: ignore[arg-type]


def sample_of(count: int) -> Sample:
    random = torch.Generator().manual_seed(3)
    condition = Condition(("",) * count, {"given": torch.ones(count, 1)})
    noise = torch.randn(count, 2, 1, 1, dtype=torch.float64, generator=random)
    return Sample(GENERATOR.generate(noise, condition).detach(), condition, noise, random)


def kl_of(term: Divergence, count: int = 20_000) -> float:
    return float(term(sample_of(count)).details["kl"])  # type: ignore[operator]


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_noise_rate_is_the_slope_of_the_log_ratio(name: str) -> None:
    schedule = SCHEDULES[name]
    step = 1 / 999 if isinstance(schedule, VariancePreserving) else 1e-5
    t = torch.arange(30, 980, 31, dtype=torch.float64) / 999

    def height(at: Tensor) -> Tensor:
        return (schedule.sigma(at) / schedule.alpha(at)).log()

    torch.testing.assert_close(
        schedule.noise_rate(t), (height(t + step) - height(t - step)) / (2 * step), rtol=1e-4, atol=0
    )


def test_the_ends_of_a_schedule_have_no_weight_that_is_not_finite() -> None:
    ends = torch.tensor([0.0, 1.0 / 999, 998.0 / 999, 1.0])
    for schedule in SCHEDULES.values():
        for times in (UniformTimes(0.0, 1.0), LogitNormalTimes(0.0, 1.0)):
            assert torch.isfinite(kl_weight(schedule, times, ends)).all()
            assert (kl_weight(schedule, times, ends) >= 0).all()
    flat = SCHEDULES["zero terminal SNR"].noise_rate(ends)
    assert flat[-1] == torch.inf and torch.isfinite(flat[:-1]).all()


@pytest.mark.parametrize("times", [(0.02, 0.98), (0.0, 1.0), (0.3, 0.6)], ids=str)
@pytest.mark.parametrize("name", SCHEDULES)
def test_it_is_the_mean_kl_over_whatever_times_are_looked_at(name: str, times: tuple[float, float]) -> None:
    found = kl_of(term_of(schedule=SCHEDULES[name], sampling=UniformTimes(*times)))
    expected = closed_form_kl(LAW, TARGET, SCHEDULES[name], *(max(times[0], 1e-3), min(times[1], 1 - 1e-3))).item()
    tolerance = 0.03 if times[1] > 0.9 else 0.15  # 0.6 is far from pure noise, and much of the KL is left there
    assert found == pytest.approx(expected, rel=tolerance)


def test_it_depends_on_no_weighting() -> None:
    assert len({kl_of(term_of(weighting=weighting)) for weighting in WEIGHTINGS.values()}) == 1


def test_every_divergence_reports_the_same() -> None:
    ratio = GaussianRatio(GENERATOR, TARGET, SCHEDULES["flow"])
    terms = [
        term_of(kind, weighting=uniform, **others)
        for kind, others in (
            (IntegralKL, {}),
            (ScoreDivergence, {}),
            (DiffusedReward, {}),
            (FDivergence, {"ratio": ratio}),
        )
    ]
    expected, *others = [kl_of(term, 500) for term in terms]
    assert others == pytest.approx([expected] * 3, rel=1e-12)


def test_the_importance_of_logit_normal_times_is_one_over_their_density() -> None:
    times, count = LogitNormalTimes(0.1, 0.7), 200_000
    drawn = times(torch.zeros(count, 1, dtype=torch.float64), torch.Generator().manual_seed(0)).t
    places = (drawn - 0.1) / 0.6
    inside = (places > 0.05) & (places < 0.95)
    weights = times.importance(drawn) * inside
    assert weights.mean().item() == pytest.approx(0.9, rel=2e-3)
    assert (weights * places).mean().item() == pytest.approx(0.45, rel=2e-3)
    assert times.importance(drawn).max() < 10.3
    assert isinstance(times, TimeLaw)


def test_a_sampling_that_names_no_law_gets_no_estimate() -> None:
    class Fixed:
        def __call__(self, x0: Tensor, random: torch.Generator) -> Draw:
            return Draw(torch.full((len(x0),), 0.5, dtype=x0.dtype), torch.zeros_like(x0))

    result = term_of(sampling=Fixed())(sample_of(4))  # type: ignore[operator]
    assert "kl" not in result.details and "score_gap" in result.details


def test_verify_has_a_row_for_each_schedule_and_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run_verify(cases=["kl"])
    assert len(rows) == 4 and all(row.passed and row.quantity == "kl" for row in rows)
    monkeypatch.setattr(kl_rows_module, "SAMPLES", 5000)
    right = estimates.kl_weight
    for wrong in (lambda *a: right(*a) * 1.05, lambda s, law, t: right(s, replace(law, low=law.low - 0.02), t)):
        monkeypatch.setattr(estimates, "kl_weight", wrong)
        assert not any(row.passed for row in kl_rows() if "uniform" in row.term)
