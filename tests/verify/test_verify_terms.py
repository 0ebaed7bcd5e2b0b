"""Every term of the family against its closed form, and that a mistake in any of them is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dipp_toolkit.errors import RequestError
from dipp_toolkit.objective.base import Sample, TermResult
from dipp_toolkit.objective.terms import divergence
from dipp_toolkit.objective.terms.diffused_reward import DiffusedReward
from dipp_toolkit.objective.terms.f_divergence import FDivergence
from dipp_toolkit.objective.terms.integral_kl import IntegralKL
from dipp_toolkit.objective.terms.policy_gradient import PolicyGradient
from dipp_toolkit.objective.terms.score_divergence import ScoreDivergence
from dipp_toolkit.objective.terms.trajectory import Trajectory
from dipp_toolkit.verify import CASES, run_verify
from dipp_toolkit.verify.cases import make_reference
from dipp_toolkit.verify.gradients import compare_gradients
from dipp_toolkit.verify.runner import probe, run_case
from dipp_toolkit.verify.world_terms import Subject

SUBJECTS: dict[str, tuple[Subject, str, type]] = {
    "integral_kl": (Subject("integral_kl", {}), "linear", IntegralKL),
    "squared": (Subject("score_divergence", {"distance": "squared"}), "linear", ScoreDivergence),
    "pseudo-huber": (Subject("score_divergence", {"distance": "pseudo-huber", "c": 1.0}), "quadratic", ScoreDivergence),
    "diffused_reward": (Subject("diffused_reward", {"steps": 3, "proxies": 2}), "linear", DiffusedReward),
    "jensen_shannon": (Subject("f_divergence", {"kind": "jensen_shannon"}), "slight", FDivergence),
    "forward_kl": (Subject("f_divergence", {"kind": "forward_kl"}), "slight", FDivergence),
    "policy_gradient": (Subject("policy_gradient", {"normalise": False}), "quadratic", PolicyGradient),
    "reward_only": (Subject("reward_only", {}), "quadratic", object),
    "trajectory": (Subject("trajectory", {"share": 1.0}), "guidance", Trajectory),
}

PLUGIN = '''
from dataclasses import dataclass

from dipp_toolkit.objective.gaussians import average_kl
from dipp_toolkit.objective.terms.divergence import Divergence, noised
from dipp_toolkit.objective.base import TermResult


@dataclass
class MyTerm(Divergence):
    """Twice the integral KL."""

    def __call__(self, sample):
        look = noised(self.schedule, sample, self.sampling)
        x0_reference, x0_assistant = self.reference_x0(look), self.assistant_x0(look)
        gap = 2 * self.factor(look, x0_reference, x0_assistant) * (x0_assistant - x0_reference)
        return TermResult(gap.flatten(1).mean(1).detach(), gap.detach())

    def closed_form(self, problem):
        return FACTOR * average_kl(problem.law, problem.target, problem)
'''


def gradient_error(name: str) -> float:
    """Relative error of the engine's gradient to autograd of the closed form."""
    subject, case, _ = SUBJECTS[name]
    expected, found = compare_gradients(CASES[case], subject, make_reference())
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("name", SUBJECTS)
def test_gradients_are_autograd_of_the_closed_forms(name: str) -> None:
    assert gradient_error(name) < 1e-4


@pytest.mark.parametrize(
    "name", ["squared", "diffused_reward", "policy_gradient", "reward_only", "forward_kl", "trajectory"]
)
def test_the_exact_assistant_reaches_the_optimum(name: str) -> None:
    subject, case, _ = SUBJECTS[name]
    for row in run_case(CASES[case], subject.term, "exact", options=subject.options):
        assert row.passed, row


# The two distances are one term, whose gradients are held for both.
@pytest.mark.first_case
@pytest.mark.parametrize(
    "name",
    ["squared", pytest.param("pseudo-huber", marks=pytest.mark.exhaustive), "diffused_reward", "jensen_shannon"],
)
def test_a_learned_assistant_reaches_the_optimum(name: str) -> None:
    subject, case, _ = SUBJECTS[name]
    for row in run_case(CASES[case], subject.term, "learned", options=subject.options):
        assert row.passed, row


@pytest.mark.exhaustive
def test_every_row_of_every_term_holds() -> None:
    for row in run_verify():
        assert row.passed, row


@pytest.mark.exhaustive
def test_the_diffused_reward_lands_where_rlhf_does_whatever_the_weighting() -> None:
    reference, means = make_reference(), []
    for name in ("linear", "snr"):
        case = CASES[name]
        assert case.reward is not None
        wanted = reference.given.mean + case.reward_scale * reference.given.covariance @ case.reward.slope
        best = case.optimum(probe(Subject("diffused_reward", {}), reference), reference)
        torch.testing.assert_close(best.mean, wanted)
        torch.testing.assert_close(best.covariance, reference.given.covariance)
        rows = run_case(case, "diffused_reward", "exact")
        means.append(torch.tensor(rows[0].reached, dtype=torch.float64))
        torch.testing.assert_close(means[-1], wanted, rtol=2e-3, atol=0)
    plain = [CASES[name].optimum(probe(Subject("integral_kl", {}), reference), reference) for name in ("linear", "snr")]
    assert (plain[0].mean - plain[1].mean).norm() > 0.01, "the plain reward's optimum does depend on the weighting"


def test_guidance_alone_lands_on_the_line_between_the_means() -> None:
    reference = make_reference()
    wanted = reference.empty.mean + 2.5 * (reference.given.mean - reference.empty.mean)
    for term in ("integral_kl", "diffused_reward"):
        rows = run_case(CASES["guidance"], term, "exact")
        torch.testing.assert_close(torch.tensor(rows[0].reached, dtype=torch.float64), wanted, rtol=2e-3, atol=0)


@pytest.mark.first_case
@pytest.mark.parametrize("name", [name for name in SUBJECTS if name != "reward_only"])
def test_a_flipped_sign_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    term = SUBJECTS[name][2]
    original: Callable[..., TermResult] = term.__call__

    def flipped(self: object, sample: Sample) -> TermResult:
        result = original(self, sample)
        return replace(result, grad=-result.grad)

    monkeypatch.setattr(term, "__call__", flipped)
    assert gradient_error(name) > 1


@pytest.mark.first_case
@pytest.mark.parametrize("name", ["integral_kl", "squared", "pseudo-huber", "diffused_reward", "forward_kl"])
def test_a_missing_alpha_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    original = divergence.Divergence.factor

    def without_alpha(self: divergence.Divergence, look: divergence.Noised, *both: torch.Tensor) -> torch.Tensor:
        return original(self, look, *both) / look.alpha

    monkeypatch.setattr(divergence.Divergence, "factor", without_alpha)
    assert gradient_error(name) > 0.01


@pytest.mark.parametrize("name", ["integral_kl", "squared", "pseudo-huber", "diffused_reward"])
def test_swapped_networks_are_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    guided = divergence.guided_x0
    assistants: list[object] = []
    predict = divergence.Divergence.assistant_x0

    def of_the_reference(self: divergence.Divergence, look: divergence.Noised) -> torch.Tensor:
        assistants.append(self.assistant)
        return guided(self.reference, look.x_t, look.t, look.condition, self.guidance)

    def of_the_assistant(self: divergence.Divergence, look: divergence.Noised) -> torch.Tensor:
        return predict(self, look)

    monkeypatch.setattr(divergence.Divergence, "assistant_x0", of_the_reference)
    monkeypatch.setattr(divergence.Divergence, "reference_x0", of_the_assistant)
    if name == "diffused_reward":
        # It asks for the reference's prediction by itself; seeing the reference twice is the mistake here.
        monkeypatch.setattr(divergence.Divergence, "reference_x0", of_the_reference)
    assert gradient_error(name) > 0.1
    assert assistants


@pytest.mark.first_case
@pytest.mark.parametrize(("factor", "passes"), [("2", True), ("3", False)])
def test_a_term_of_a_plugin_is_held_against_its_own_closed_form(tmp_path: Path, factor: str, passes: bool) -> None:
    file = tmp_path / "my_plugin.py"
    file.write_text(f"FACTOR = {factor}\n{PLUGIN}")
    rows = run_verify(f"{file}:MyTerm", cases=["linear"], assistants=["exact"])
    assert [row.quantity for row in rows] == ["mean", "covariance", "gradient"]
    assert all(row.passed for row in rows) is passes


def test_a_case_without_a_closed_form_is_a_sentence() -> None:
    with pytest.raises(RequestError, match="no closed form on the case quadratic"):
        run_verify("diffused_reward", cases=["quadratic"])
