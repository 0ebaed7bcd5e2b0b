r"""What a guided field is the score of: at every time of some law, and of no law's diffusion.

FLUX.1-dev's network gives the field of a teacher under guidance. Two Gaussian teachers, with and without a prompt,
have a guided score in closed form:

$$w\, s_c + (1 - w)\, s_u = -P_t (x - \mu_t), \qquad P_t = \frac{w}{C_t^c} + \frac{1 - w}{C_t^u}, \qquad
  \mu_t = \frac{\alpha_t}{P_t} \Big(\frac{w\, m_c}{C_t^c} + \frac{(1 - w)\, m_u}{C_t^u}\Big).$$

That is the score of $N(\mu_t, 1/P_t)$, which is a diffused $N(\mu_t/\alpha_t, v_t)$ with
$v_t = (1/P_t - \sigma_t^2)/\alpha_t^2$. Diffusion of one law would have one mean and one $v$.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.diffusion.predictions import score_from_x0
from dipp_toolkit.diffusion.schedules import FlowMatching
from dipp_toolkit.objective.gaussians import Gaussian
from dipp_toolkit.objective.terms.divergence import guided_x0
from dipp_toolkit.verify.gaussian_network import gaussian_denoiser
from dipp_toolkit.verify.loops.own_loop import WorldReference
from dipp_toolkit.verify.network import GIVEN

W = 3.5
"""FLUX.1-dev's guidance."""
SCHEDULE = FlowMatching()
TIMES = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)


def undone(w: float, given: tuple[float, float], empty: tuple[float, float], t: Tensor) -> tuple[Tensor, Tensor]:
    r"""$\mu_t / \alpha_t$ and $v_t$: the law whose diffusion the guided score is of, taken at each time alone."""
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    (m_c, v_c), (m_u, v_u) = given, empty
    c, u = alpha.square() * v_c + sigma.square(), alpha.square() * v_u + sigma.square()
    precision = w / c + (1 - w) / u
    mean = (w * m_c / c + (1 - w) * m_u / u) / precision
    return mean, (1 / precision - sigma.square()) / alpha.square()


def slope(variance: Tensor, v: Tensor, t: Tensor) -> Tensor:
    r"""The integral KL's derivative with respect to a Gaussian generator's variance, up to a factor: the average of
    $\alpha^2 (P_t - 1 / (\alpha^2 S + \sigma^2))$."""
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    precision = 1 / (alpha.square() * v + sigma.square())
    return (alpha.square() * (precision - 1 / (alpha.square() * variance + sigma.square()))).mean()


def stationary(v: Tensor, t: Tensor) -> float:
    """The generator's variance at which the gradient vanishes, by bisection."""
    low, high = torch.tensor(1e-9).double(), torch.tensor(1e3).double()
    for _ in range(200):
        middle = (low * high).sqrt()
        low, high = (middle, high) if slope(middle, v, t) < 0 else (low, middle)
    return float(low)


def test_the_toolkits_guided_prediction_has_this_score() -> None:
    empty, given = Gaussian(torch.tensor([0.3]).double(), torch.eye(1).double()), torch.tensor([1.5]).double()
    law = Gaussian(given, empty.covariance)
    reference = WorldReference(gaussian_denoiser(empty, law, SCHEDULE))
    x, t = torch.randn(19, 1, 1, 1, dtype=torch.float64), TIMES
    condition = Condition(("a",) * 19, {GIVEN: torch.ones(19, 1)})
    found = guided_x0(reference, x, t, condition, W)
    alpha, sigma = SCHEDULE.alpha(t)[:, None], SCHEDULE.sigma(t)[:, None]
    score = score_from_x0(found.flatten(1), x.flatten(1), alpha, sigma)
    mean, v = undone(W, (1.5, 1.0), (0.3, 1.0), t)
    expected = -(x.flatten(1) - alpha * mean[:, None]) / (alpha.square() * v[:, None] + sigma.square())
    torch.testing.assert_close(score, expected, rtol=1e-5, atol=1e-5)


def test_of_equal_covariances_it_is_one_laws_diffusion() -> None:
    mean, v = undone(W, (1.5, 0.5), (0.3, 0.5), TIMES)
    assert mean.tolist() == pytest.approx([0.3 + W * 1.2] * len(TIMES))
    assert v.tolist() == pytest.approx([0.5] * len(TIMES))


def test_without_guidance_it_is_the_honest_score() -> None:
    mean, v = undone(1.0, (1.5, 0.5), (0.3, 1.0), TIMES)
    assert mean.tolist() == pytest.approx([1.5] * len(TIMES)) and v.tolist() == pytest.approx([0.5] * len(TIMES))


def test_of_other_covariances_it_is_of_no_laws_diffusion() -> None:
    mean, v = undone(W, (1.5, 0.5), (0.3, 1.0), TIMES)
    assert float(v.max() - v.min()) > 0.5 and float(mean.max() - mean.min()) > 1
    assert bool((v[:-1] > v[1:]).all()), "at later times it is of a narrower law"
    alpha, sigma = SCHEDULE.alpha(TIMES), SCHEDULE.sigma(TIMES)
    precision = 1 / (alpha.square() * v + sigma.square())
    assert bool((precision > 0).all()), "at each time it is the score of a Gaussian"
    assert float(v[0]) == pytest.approx(0.22, abs=5e-3) and v[7] > 0 > v[9], "t = 0.05, 0.4 and 0.5"
    assert v[-1] < 0, "and at late ones that Gaussian is narrower than the noise alone: nothing diffuses to it"


@pytest.mark.parametrize("given", [0.9, 0.5])
def test_the_generator_ends_at_a_compromise_of_the_times(given: float) -> None:
    _, v = undone(W, (1.5, given), (0.3, 1.0), TIMES)
    whole = stationary(v, TIMES)
    assert float(v.min()) < whole < float(v.max())
    assert abs(float(slope(torch.tensor(whole, dtype=torch.float64), v, TIMES))) < 1e-9
    early, late = stationary(v[:9], TIMES[:9]), stationary(v[9:], TIMES[9:])
    assert early > whole > late, "so that time_range and weighting decide where it ends"
    _, honest = undone(1.0, (1.5, given), (0.3, 1.0), TIMES)
    for times in (TIMES, TIMES[:9], TIMES[9:]):
        assert stationary(honest[: len(times)], times) == pytest.approx(given), "an honest score's end depends on none"
