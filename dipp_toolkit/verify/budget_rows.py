r"""A KL budget against its closed form: with a linear reward the KL at the optimum is a known function of the scale.

With $M = \int \alpha_t^2 C_t^{-1} dt$ the optimum is $b = \mu + \alpha_{rew} M^{-1} a$, $S = \Sigma$, and the mean KL
over the times is $\frac12 \alpha_{rew}^2\, a^T M^{-1} a$. A budget of B nats a dimension is therefore reached at

$$\alpha^*(B) = \sqrt{2 d B / a^T M^{-1} a},$$

wherever the controller starts.
"""

from __future__ import annotations

import math

import torch

from ..config import make_config
from ..diffusion.schedules import Schedule
from ..objective.build import build_mix
from ..objective.gaussians import Gaussian, QuadraticReward
from ..training.engine import Engine
from .cases import CASES, make_generator, make_reference
from .kl_rows import TIMES, closed_form_kl, schedules
from .quadrature import Enumeration, QuadratureEngine, midpoints
from .rows import VerifyRow
from .training import BETAS, PROMPT, rate_at
from .world import AnyTimeReference, ExactAssistant
from .world_terms import Subject, case_terms, without_chance

CASE = "kl-budget"
"""What people type for these rows."""

BUDGET = 0.05
"""Nats a dimension."""

STARTS = (0.1, 10.0)
"""The scale at the start, in multiples of the one that the budget is reached at."""

UPDATES = 500

RATES = (0.06, 3e-3)
"""Adam's rate for the generator at the first and at the last update."""

NODES = 24
"""Times that the integral is a sum over."""

TOLERANCE = 0.02


def scale_for(budget: float, law: Gaussian, slope: torch.Tensor, schedule: Schedule, low: float, high: float) -> float:
    r"""$\alpha^*(B)$ for the integral KL with a weight of 1.

    Args:
        budget: B, in nats a dimension.
        law: the reference's.
        slope: a, the linear reward's.
        schedule: the forward process.
        low: where the times begin.
        high: where they end.
    """
    times = midpoints(low, high, 2000)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    precision = torch.linalg.inv(law.noised_covariance(alpha, sigma))
    information = (alpha.square()[:, None, None] * precision).mean(0)
    return math.sqrt(2 * len(law.mean) * budget / (slope @ torch.linalg.solve(information, slope)).item())


def budget_rows(seed: int = 0, updates: int = UPDATES) -> list[VerifyRow]:
    """For each start a row for the KL that the generator ends at and one for the scale; deterministic.

    Args:
        seed: of nothing that counts: every expectation is a finite sum.
        updates: of each training.
    """
    case, schedule, rows = CASES["linear"], schedules()["flow"], []
    reference = AnyTimeReference.like(make_reference(), schedule)
    assert isinstance(case.reward, QuadraticReward)
    scale = scale_for(BUDGET, reference.given, case.reward.slope, schedule, *TIMES)
    for start in STARTS:
        engine, law = _train(reference, start * scale, seed, updates)
        assert engine.mix.scale.budget is not None
        factor = torch.as_tensor(engine.mix.scale.budget.factor)
        kl = closed_form_kl(law, reference.given, schedule, *TIMES)
        label = f"integral_kl[from {start:g} times the scale]"
        for quantity, expected, reached in (("kl", BUDGET, kl), ("scale", scale, start * scale * factor)):
            goal = torch.tensor([expected], dtype=torch.float64)
            rows.append(VerifyRow.compare(CASE, label, "exact", quantity, goal, reached.reshape(1), TOLERANCE))
    return rows


def _train(reference: AnyTimeReference, scale: float, seed: int, updates: int) -> tuple[Engine, Gaussian]:
    """An engine after a training that began with a scale of the linear reward, and the law it led to."""
    case, generator = CASES["linear"], make_generator()
    exact = ExactAssistant(generator, reference.schedule)
    enumeration = Enumeration(midpoints(*TIMES, NODES), len(reference.given.mean))
    subject = Subject("integral_kl", {})
    terms = case_terms(case, subject, reference, exact, seed, {"reward_scale": scale})
    terms = without_chance(terms, enumeration, subject)
    mix = build_mix(make_config({"kl_budget": BUDGET, "rewards": {case.name: 1.0}}))
    optimizer = torch.optim.Adam(generator.network.parameters(), betas=BETAS)
    engine = QuadratureEngine(
        generator, optimizer, exact, terms, torch.Generator().manual_seed(seed), 0, max_grad_norm=math.inf, mix=mix,
        enumeration=enumeration,
    )  # fmt: skip
    condition = reference.encode([PROMPT] * enumeration.rows)
    for step in range(updates):
        optimizer.param_groups[0]["lr"] = rate_at(RATES, step, updates)
        engine.update_generator(condition, step)
    return engine, generator.law
