"""`dipp verify --thorough`: a sample of its rows passes, and every mistake made on purpose fails rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_toolkit.config import TrainConfig
from dipp_toolkit.diffusion import denoiser, schedules, times
from dipp_toolkit.objective.terms import divergence, integral_kl
from dipp_toolkit.objective.terms.integral_kl import IntegralKL
from dipp_toolkit.verify.cases import WEIGHTS, optimum
from dipp_toolkit.verify.thorough import engines
from dipp_toolkit.verify.thorough.closed_forms import objective_of
from dipp_toolkit.verify.thorough.collapse import (
    most_curvature,
    most_curvature_of_dmd,
)
from dipp_toolkit.verify.thorough.dmd_form import dmd_gradient, dmd_optimum
from dipp_toolkit.verify.thorough.dmd_rows import turned_rows, upright_row
from dipp_toolkit.verify.thorough.engines import Setting
from dipp_toolkit.verify.thorough.gradient_rows import gradient_row, settings
from dipp_toolkit.verify.thorough.processes import PROCESSES
from dipp_toolkit.verify.thorough.world import (
    SIZE,
    VARIANCES,
    curved_reward,
    linear_reward,
    make_reference,
    upright_reward,
)

Patch = pytest.MonkeyPatch
LIMITS = re.compile(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE)


@pytest.fixture(autouse=True)
def few_times(monkeypatch: Patch) -> None:
    """A quarter of the command's times and pairs: seconds are worth more here than the last digit."""
    monkeypatch.setattr(engines, "TIMES", 500)
    monkeypatch.setattr(engines, "PAIRS", 2**13)


def guided(process: str, weighting: str = "uniform", law: str = "uniform", term: str = "integral_kl") -> Setting:
    return Setting(PROCESSES[process], weighting, law, term, guidance=2.5, reward=curved_reward())


def upright(process: str, law: str = "uniform") -> Setting:
    plain = Setting(PROCESSES[process], "dmd", law, guidance=2.5, upright=True)
    return replace(plain, reward=upright_reward(plain.target))


SAMPLE = {
    "shift": guided("flow-shift-3"),
    "epsilon": guided("cosine", "snr", "logit-normal"),
    "x0": guided("sigmoid-betas"),
    "zero SNR": guided("zero-snr"),
}
"""Of the command's rows: every prediction but one, every weighting with a closed form and both laws of times."""


@pytest.mark.parametrize("name", SAMPLE)
def test_gradients_are_those_of_the_closed_forms(name: str) -> None:
    row = gradient_row(SAMPLE[name])
    assert row.passed, (row.term, row.error)


def test_the_other_terms_are_those_of_theirs() -> None:
    for term, reward in (("score_divergence", curved_reward()), ("diffused_reward", linear_reward())):
        options = {"distance": "squared"} if term == "score_divergence" else {}
        row = gradient_row(Setting(PROCESSES["root-betas"], "snr", "uniform", term, options, 2.5, reward))
        assert row.passed, (row.term, row.error)


def test_dmd_is_as_its_closed_form_where_the_world_is_upright() -> None:
    row = upright_row(upright("flow", "logit-normal"))
    assert row.error < 2 * row.tolerance, row.error  # of a quarter of the pairs
    for row in turned_rows(PROCESSES["flow-shift-3"]):
        assert row.passed, (row.quantity, row.error)


def test_the_command_has_a_row_for_every_process_weighting_and_law() -> None:
    seen = {(setting.process.name, setting.weighting, setting.times) for setting in settings()}
    assert {(name, weighting, law) for name in PROCESSES for weighting in WEIGHTS for law in times.SAMPLINGS} <= seen
    assert {setting.term for setting in settings()} == {"integral_kl", "score_divergence", "diffused_reward"}


def test_the_world_is_turned_and_narrow() -> None:
    covariance = make_reference(PROCESSES["flow"]).given.covariance
    assert (covariance - covariance.diagonal().diag()).norm() > 0.5 * covariance.norm()
    torch.testing.assert_close(torch.linalg.eigvalsh(covariance).flip(0), VARIANCES)


def test_the_networks_know_the_processes_that_the_toolkit_reads() -> None:
    for process in PROCESSES.values():
        t = torch.linspace(*process.times, 7, dtype=torch.float64)
        alpha, sigma = process.network(process.schedule.network_time(t))
        torch.testing.assert_close(alpha, process.schedule.alpha(t), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(sigma, process.schedule.sigma(t), atol=1e-5, rtol=1e-4)


# Mistakes.


def _weighting(name: str, made: Callable[[times.WeightingInputs], Tensor]) -> Callable[[Patch], None]:
    return lambda monkeypatch: monkeypatch.setitem(times.WEIGHTINGS, name, made)


def _guidance_backwards(monkeypatch: Patch) -> None:
    original = divergence.guided_x0
    for place in (divergence, integral_kl):
        monkeypatch.setattr(place, "guided_x0", lambda *most: original(*most[:-1], 2 - most[-1]))


def _scale_twice(monkeypatch: Patch) -> None:
    original = TrainConfig.alpha_rew.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(TrainConfig, "alpha_rew", property(lambda config: original(config) ** 2))


def _output_taken_for_x0(monkeypatch: Patch) -> None:
    monkeypatch.setattr(denoiser, "to_x0", lambda kind, output, *others: output)


def _no_shift(monkeypatch: Patch) -> None:
    monkeypatch.setattr(schedules.FlowMatching, "tau", lambda schedule, t: t)


def _no_rescaling(monkeypatch: Patch) -> None:
    original = schedules._ddpm_scheduler
    monkeypatch.setattr(
        schedules, "_ddpm_scheduler", lambda config: original({**config, "rescale_betas_zero_snr": False})
    )


def _uniform_times(monkeypatch: Patch) -> None:
    monkeypatch.setitem(times.SAMPLINGS, "logit-normal", times.UniformTimes)


def _swapped(monkeypatch: Patch) -> None:
    original = IntegralKL.__call__

    def turned(self: IntegralKL, sample: Any) -> Any:
        result = original(self, sample)
        return replace(result, grad=-result.grad)

    monkeypatch.setattr(IntegralKL, "__call__", turned)


MISTAKES: dict[str, tuple[Callable[[Patch], None], Setting]] = {
    "alpha / sigma to the first power": (
        _weighting("uniform", lambda inputs: inputs.alpha / inputs.sigma), guided("cosine"),
    ),
    "alpha left out": (_weighting("uniform", lambda inputs: 1 / inputs.sigma.square()), guided("flow-shift-3")),
    "w(t) left out": (
        _weighting("snr", lambda inputs: (inputs.alpha / inputs.sigma).square()), guided("root-betas", "snr"),
    ),
    "guidance the wrong way": (_guidance_backwards, guided("flow")),
    "the reward's scale twice": (_scale_twice, guided("flow")),
    "epsilon taken for x0": (_output_taken_for_x0, guided("cosine")),
    "v taken for x0": (_output_taken_for_x0, guided("zero-snr")),
    "velocity taken for x0": (_output_taken_for_x0, guided("flow")),
    "the shift ignored": (_no_shift, guided("flow-shift-3")),
    "zero terminal SNR ignored": (_no_rescaling, guided("zero-snr")),
    "logit-normal times drawn uniformly": (_uniform_times, guided("cosine", "snr", "logit-normal")),
    "the sign of the divergence": (_swapped, guided("sigmoid-betas")),
}  # fmt: skip
"""Each with a row that notices it."""


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_out_of_tolerance(monkeypatch: Patch, name: str) -> None:
    mistake, setting = MISTAKES[name]
    mistake(monkeypatch)
    row = gradient_row(setting)
    assert not row.passed and row.error > 10 * row.tolerance, (row.term, row.error)


DMD_MISTAKES: dict[str, Callable[[times.WeightingInputs], Tensor]] = {
    "the assistant's error": lambda inputs: _over((inputs.x0 - inputs.x0_assistant).abs(), inputs),
    "the sum of the numbers": lambda inputs: _over(inputs.x0.new_full((), SIZE) * _error(inputs).abs(), inputs),
    "the root of the mean square": lambda inputs: (
        1 / _error(inputs).square().flatten(1).mean(1).sqrt().reshape(inputs.alpha.shape)
    ),
    "the batch's mean": lambda inputs: 1 / _error(inputs).abs().mean().expand(inputs.alpha.shape),
}


def _error(inputs: times.WeightingInputs) -> Tensor:
    return inputs.x0 - inputs.x0_reference


def _over(sizes: Tensor, inputs: times.WeightingInputs) -> Tensor:
    return 1 / sizes.flatten(1).mean(1).clamp(min=1e-6).reshape(inputs.alpha.shape)


@pytest.mark.parametrize("name", DMD_MISTAKES)
def test_a_mistake_in_dmd_is_out_of_tolerance(monkeypatch: Patch, name: str) -> None:
    monkeypatch.setitem(times.WEIGHTINGS, "dmd", DMD_MISTAKES[name])
    row = upright_row(upright("cosine"))
    assert row.error > 5 * row.tolerance, row.error


def test_a_generator_that_pulls_at_its_target_fails(monkeypatch: Patch) -> None:
    """Where every sample's difference is zero, a wrong guidance is what is seen."""
    _guidance_backwards(monkeypatch)
    rows = {row.quantity: row for row in turned_rows(PROCESSES["flow"])}
    assert not rows["gradient at the target"].passed


# The closed forms themselves.


def test_the_gradient_of_dmd_is_zero_at_the_reference_alone() -> None:
    target = make_reference(PROCESSES["cosine"], upright=True).given
    grid = PROCESSES["cosine"].grid("uniform")
    at = dmd_gradient(target.covariance.diagonal().sqrt(), target.mean, target, grid)
    assert max(at.bias.abs().max(), at.matrix.abs().max()) < 1e-12
    found = dmd_optimum(target, PROCESSES["flow"].grid("uniform", 50), None, 0.0)
    torch.testing.assert_close(found.mean, target.mean)
    torch.testing.assert_close(found.covariance, target.covariance)


def test_a_linear_reward_moves_the_covariance_under_dmd_and_under_no_other_weighting() -> None:
    plain = Setting(PROCESSES["flow"], "dmd", upright=True)
    slope = torch.zeros(SIZE, dtype=torch.float64)
    slope[0] = 1.0
    reward = replace(linear_reward(), slope=slope)
    grid = plain.process.grid("uniform", 50)
    moved = dmd_optimum(plain.target, grid, reward, 0.5).covariance.diagonal() / plain.target.covariance.diagonal()
    assert abs(moved[0] - 1) > 0.02
    torch.testing.assert_close(moved[1:], torch.ones(SIZE - 1, dtype=torch.float64))
    still = optimum(objective_of(replace(plain, weighting="snr", reward=reward)), plain.target).covariance
    torch.testing.assert_close(still, plain.target.covariance, rtol=1e-5, atol=1e-7)


def test_curved_rewards_collapse_a_direction_under_bounded_weightings() -> None:
    narrow, wide = 0.01, 4.0
    for name in ("flow", "cosine"):
        snr, uniform = (Setting(PROCESSES[name], weighting, upright=True) for weighting in ("snr", "uniform"))
        assert most_curvature(snr, narrow) < most_curvature(snr, wide) < 1
        assert most_curvature(uniform, narrow) > 10 * most_curvature(snr, narrow)
    earlier = replace(PROCESSES["flow"], times=(0.001, 0.98))
    assert most_curvature(Setting(earlier, "uniform"), wide) > 10 * most_curvature(Setting(PROCESSES["flow"]), wide)


def test_the_page_says_how_much_curvature_each_weighting_holds() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guide" / "concepts.md").read_text(encoding="utf-8")
    written = {name: (float(wide), float(narrow)) for name, wide, narrow in LIMITS.findall(page)}
    assert written.keys() == {"snr", "dmd", "uniform"}
    for weighting, numbers in written.items():
        setting = Setting(PROCESSES["flow"], weighting, upright=True)
        if weighting == "dmd":
            found = [most_curvature_of_dmd(setting, axis) for axis in (0, SIZE - 1)]
        else:
            found = [most_curvature(setting, variance) for variance in (4.0, 0.01)]
        assert found == pytest.approx(numbers, rel=0.005, abs=0.005)
