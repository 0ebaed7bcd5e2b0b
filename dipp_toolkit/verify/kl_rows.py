r"""The integral KL that divergences report, in nats, against its closed form on Gaussians.

$KL(N_t(law) \| N_t(target))$ is known at every time; its mean over the times that are looked at is what the detail `kl`
of a term should be on average, whatever weighting the gradient has and however the times are drawn.
"""

from __future__ import annotations

import torch

from ..diffusion.schedules import FlowMatching, Schedule, VariancePreserving
from ..diffusion.times import SAMPLINGS, dmd
from ..objective.base import Sample
from ..objective.gaussians import Gaussian, GaussianProblem, average_kl
from ..objective.terms.integral_kl import IntegralKL
from .cases import make_reference
from .gradients import trial_generator
from .quadrature import midpoints
from .rows import VerifyRow
from .training import PROMPT
from .world import AnyTimeReference, ExactAssistant

CASE = "kl"
"""What people type for these rows."""

TIMES = (0.02, 0.98)
"""A run's usual range."""

SAMPLES = 50_000
"""Drawn for each estimate."""

TOLERANCES = {"uniform": 0.005, "logit-normal": 0.03}
"""Logit-normal times see the ends of the range so seldom that what lies there is counted too little."""

FINE = 2000
"""Times of the closed form's average."""


def schedules() -> dict[str, Schedule]:
    """A table of Stable Diffusion's kind, 1,000 times of scaled-linear betas, and a flow with SD3's shift."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    return {"vp": VariancePreserving((1 - betas).cumprod(0)), "flow": FlowMatching(shift=3.0)}


def closed_form_kl(law: Gaussian, target: Gaussian, schedule: Schedule, low: float, high: float) -> torch.Tensor:
    """The mean over the times `[low, high]` of the KL between noised laws, in nats a dimension."""
    times = midpoints(low, high, FINE)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    problem = GaussianProblem(law, law, target, alpha, sigma, torch.ones_like(times))
    return average_kl(law, target, problem) / len(law.mean)


def kl_rows(seed: int = 0) -> list[VerifyRow]:
    """A row for each schedule and way to draw times; the generator's score is exact and the weighting is `dmd`."""
    rows = []
    for process, schedule in schedules().items():
        reference = AnyTimeReference.like(make_reference(), schedule)
        generator = trial_generator(reference.given)
        condition = reference.encode([PROMPT] * SAMPLES)
        expected = closed_form_kl(generator.law, reference.given, schedule, *TIMES)
        for times, sampling in SAMPLINGS.items():
            random = torch.Generator().manual_seed(seed)
            term = IntegralKL(reference, ExactAssistant(generator, schedule), 1.0, dmd, sampling(*TIMES))
            noise = torch.randn(SAMPLES, *generator.latent_shape, dtype=torch.float64, generator=random)
            with torch.no_grad():
                sample = Sample(generator.generate(noise, condition), condition, noise, random)
            reached = torch.as_tensor(term(sample).details["kl"])
            label = f"integral_kl[{process}, {times} times]"
            rows.append(VerifyRow.compare(CASE, label, "exact", "kl", expected[None], reached[None], TOLERANCES[times]))
    return rows
