"""The integral KL term's gradients against autograd of closed forms that torch.distributions computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from dipp_toolkit.config import make_config
from dipp_toolkit.diffusion.schedules import FlowMatching, Schedule, VariancePreserving
from dipp_toolkit.diffusion.times import Draw
from dipp_toolkit.objective.base import Sample, TermContext
from dipp_toolkit.objective.gaussians import Gaussian
from dipp_toolkit.objective.terms.integral_kl import IntegralKL
from dipp_toolkit.training.assistant import LearnedAssistant
from dipp_toolkit.verify.cases import CASES, grid, make_generator, make_reference
from dipp_toolkit.verify.network import closed_form_denoiser
from dipp_toolkit.verify.training import exact_engine, exact_rows
from dipp_toolkit.verify.world import AffineMap, GaussianReference
from dipp_toolkit.verify.world_terms import Subject
from kept_gradients import keep_gradients
from mutations import MUTATIONS

SCHEDULES: dict[str, Schedule] = {
    "ddpm": VariancePreserving.from_scheduler_config({"beta_schedule": "linear"}),
    "scaled-linear": VariancePreserving.from_scheduler_config(
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    ),
    "flow": FlowMatching(),
    "flow-shift-3": FlowMatching(shift=3.0),
}
PREDICTIONS = ("epsilon", "v_prediction", "sample", "velocity")
WEIGHTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "uniform": lambda alpha, sigma: torch.ones_like(alpha),
    "snr": lambda alpha, sigma: (sigma / alpha).square(),
}
BATCH = 8


@dataclass(frozen=True)
class Always:
    """A `Sampling` that always gives the same times and noises."""

    draw: Draw

    def __call__(self, x0: Tensor, random: torch.Generator) -> Draw:
        return self.draw


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest relative error of a sample's gradient."""
    return ((found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max().item()


def sample_gradient_error(
    schedule: Schedule, prediction: str, guidance: float, weighting: str, dtype: torch.dtype
) -> float:
    """Relative error of the term's gradient to autograd of w(t) [log p_t(x_t) - log q_t(x_t)], p and q fixed."""
    random = torch.Generator().manual_seed(0)
    t = torch.linspace(0.05, 0.9, BATCH, dtype=dtype)
    world = make_reference()
    empty, given = (Gaussian(law.mean.to(dtype), law.covariance.to(dtype)) for law in (world.empty, world.given))
    mixing = torch.randn(3, 3, generator=random, dtype=dtype)
    p = Gaussian(torch.randn(3, generator=random, dtype=dtype), mixing @ mixing.mT + 0.2 * torch.eye(3, dtype=dtype))
    reference = GaussianReference(empty, given, schedule, t, prediction)
    exact = closed_form_denoiser(p, p, schedule, prediction, t)
    assistant = LearnedAssistant(exact, torch.optim.SGD(exact.network.parameters(), lr=0.0))

    x0 = torch.randn(BATCH, 3, 1, 1, generator=random, dtype=dtype)
    noise = torch.randn(BATCH, 3, 1, 1, generator=random, dtype=dtype)
    config = make_config({"guidance": guidance, "weighting": weighting})
    term = replace(IntegralKL.build(TermContext(reference, assistant, config)), sampling=Always(Draw(t, noise)))
    found = term(Sample(x0, reference.encode(["a Gaussian"] * BATCH), noise, random)).grad

    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x = x0.flatten(1).requires_grad_(True)
    x_t = alpha[:, None] * x + sigma[:, None] * noise.flatten(1)
    log_p, log_empty, log_given = (law.noised(alpha, sigma).log_prob(x_t) for law in (p, empty, given))
    log_q = log_empty + guidance * (log_given - log_empty)
    (expected,) = torch.autograd.grad((WEIGHTS[weighting](alpha, sigma) * (log_p - log_q)).sum(), x)
    return relative_error(found, expected.reshape(x0.shape))


@pytest.mark.parametrize("weighting", WEIGHTS)
@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.5])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_sample_gradient_is_autograd_of_the_log_ratio(
    schedule: str, prediction: str, guidance: float, weighting: str
) -> None:
    error = sample_gradient_error(SCHEDULES[schedule], prediction, guidance, weighting, torch.float64)
    assert error < 1e-9


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_sample_gradient_in_single_precision(schedule: str, prediction: str) -> None:
    assert sample_gradient_error(SCHEDULES[schedule], prediction, 3.5, "uniform", torch.float32) < 1e-4


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_sample_gradient_notices_mistakes(monkeypatch: pytest.MonkeyPatch, mutation: Callable, schedule: str) -> None:
    mutation(monkeypatch)
    assert sample_gradient_error(SCHEDULES[schedule], "epsilon", 3.5, "uniform", torch.float64) > 1e-3


def parameter_gradients(
    case_name: str, schedule: Schedule | None, prediction: str
) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients in A and b: what the engine leaves on the generator, and autograd of the closed-form objective."""
    case, reference = CASES[case_name], make_reference(schedule, prediction)
    generator = make_generator()
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    generator.network = AffineMap(matrix, torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64))
    times = grid()
    still = torch.optim.SGD(generator.network.parameters(), lr=0.0)
    engine = exact_engine(case, Subject("integral_kl", {}), generator, reference, still)
    keep_gradients(engine)
    engine.step([reference.encode(["a Gaussian"] * exact_rows(engine))])
    found = [generator.network.matrix.grad, generator.network.bias.grad]

    a, b = matrix.clone().requires_grad_(True), generator.network.bias.detach().clone().requires_grad_(True)
    alpha, sigma = reference.schedule.alpha(times), reference.schedule.sigma(times)
    law, target = Gaussian(b, a @ a.mT), reference.guided(case.guidance)
    divergence = kl_divergence(law.noised(alpha, sigma), target.noised(alpha, sigma))
    objective = (WEIGHTS[case.weighting](alpha, sigma) * divergence).mean()
    if case.reward is not None:
        curvature, offset = case.reward.curvature, b - case.reward.centre
        mean_reward = case.reward.slope @ b - (offset @ curvature @ offset + (curvature @ law.covariance).trace()) / 2
        objective = objective - case.reward_scale * mean_reward
    return found, list(torch.autograd.grad(objective, [a, b]))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(
    "schedule", [None, FlowMatching(), FlowMatching(shift=3.0)], ids=["vp", "flow", "flow-shift-3"]
)
def test_parameter_gradient_is_autograd_of_the_closed_form_objective(
    case: str, prediction: str, schedule: Schedule | None
) -> None:
    found, expected = parameter_gradients(case, schedule, prediction)
    for item, other in zip(found, expected, strict=True):
        torch.testing.assert_close(item, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_parameter_gradient_notices_mistakes(monkeypatch: pytest.MonkeyPatch, mutation: Callable) -> None:
    mutation(monkeypatch)
    found, expected = parameter_gradients("guidance", None, "epsilon")
    for item, other in zip(found, expected, strict=True):
        assert relative_error(item[None], other[None]) > 1e-3


def test_closed_form_denoiser_is_the_posterior_mean() -> None:
    """E[x_0 | x_t] from the joint law of (x_0, x_t), by the textbook formula for conditioning a normal vector."""
    reference, alpha, sigma = make_reference(), torch.tensor(0.6).double(), torch.tensor(0.8).double()
    law = reference.given
    joint = MultivariateNormal(
        torch.cat([law.mean, alpha * law.mean]),
        torch.cat(
            [
                torch.cat([law.covariance, alpha * law.covariance], 1),
                torch.cat([alpha * law.covariance, alpha**2 * law.covariance + sigma**2 * torch.eye(3).double()], 1),
            ]
        ),
    )
    x_t = torch.tensor([[0.4, -1.0, 2.0]], dtype=torch.float64)
    # Given x_t, the joint density is largest in x_0 at the conditional mean: one Newton step of a quadratic finds it.
    x0 = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    density = lambda x: joint.log_prob(torch.cat([x, x_t[0]]))  # noqa: E731
    (slope,) = torch.autograd.grad(density(x0), x0)
    curvature = torch.autograd.functional.hessian(density, x0)
    mode = x0.detach() - torch.linalg.solve(curvature, slope)
    torch.testing.assert_close(law.denoise(x_t, alpha[None], sigma[None])[0], mode)
