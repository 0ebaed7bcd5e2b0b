"""Training an affine generator through the real engine, terms and assistants, to see where it ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..diffusion.condition import Condition
from ..diffusion.times import UniformTimes
from ..objective.base import uses_assistant
from ..objective.gaussians import Gaussian, Verification, verification_of
from ..training.assistant import LearnedAssistant
from ..training.ema import WeightAverage
from ..training.engine import Engine
from .cases import TIME_RANGE, Case, grid, make_generator
from .quadrature import Enumeration, QuadratureEngine
from .world import AffineGenerator, ExactAssistant, GaussianReference
from .world_terms import Subject, case_terms, without_chance

PROMPT = "a Gaussian"

BETAS = (0.0, 0.99)
"""Adam's decays. No momentum: of a generator and an assistant that chase each other, momentum makes a swing."""


@dataclass(frozen=True)
class Plan:
    """How a case is trained.

    Attributes:
        steps: generator updates.
        batch: samples an update; 0 where they are enumerated.
        rates: Adam's rate for the generator at the first and at the last update, falling geometrically.
        ema: decay of the weight average that is compared; 0 compares the last weights themselves.
        tolerance: the largest relative error that passes.
        assistant_rates: Adam's rate for the assistant, in the same way.
        assistant_rounds: assistant updates for each generator update.
        assistant_warmup: assistant updates before the first.
    """

    steps: int
    batch: int
    rates: tuple[float, float]
    ema: float
    tolerance: float
    assistant_rates: tuple[float, float] = (0.0, 0.0)
    assistant_rounds: int = 0
    assistant_warmup: int = 0


PLANS = {
    "exact": Plan(steps=300, batch=0, rates=(0.15, 1e-3), ema=0.0, tolerance=0.002),
    "learned": Plan(
        steps=400, batch=3000, rates=(0.05, 1e-3), ema=0.99, tolerance=0.02,
        assistant_rates=(0.1, 1e-3), assistant_rounds=2, assistant_warmup=50,
    ),
}  # fmt: skip
"""By the assistant's name. `exact`: enumerated noises and the score in closed form, deterministic. `learned`: random
draws and a trainable copy of the reference, fitted by denoising score matching."""


def rate_at(rates: tuple[float, float], step: int, steps: int) -> float:
    """The learning rate of an update, falling geometrically from the first value to the second."""
    first, last = rates
    return first * (last / first) ** (step / max(steps - 1, 1))


def last_step(verification: Verification, assistant: str) -> int:
    """Number of the last update of a term's training with one of `PLANS`."""
    return PLANS[assistant].steps * verification.patience - 1


def exact_engine(
    case: Case,
    subject: Subject,
    generator: AffineGenerator,
    reference: GaussianReference,
    optimizer: torch.optim.Optimizer,
    nodes: int | None = None,
) -> QuadratureEngine:
    """An engine without chance: every expectation a finite sum, the generator's score in closed form.

    Args:
        case: the objective.
        subject: the term under test.
        generator: what is trained.
        reference: the world's reference.
        optimizer: over the generator's parameters.
        nodes: nodes a dimension; what the term asks for unless said.
    """
    exact = ExactAssistant(generator, reference.schedule)
    terms = case_terms(case, subject, reference, exact)
    chosen = nodes or verification_of(terms[0].term).nodes
    enumeration = Enumeration(grid(), len(reference.empty.mean), chosen)
    target = reference.guided(case.guidance)
    terms = without_chance(terms, enumeration, subject, generator=generator, target=target, schedule=reference.schedule)
    random = torch.Generator().manual_seed(0)
    return QuadratureEngine(
        generator, optimizer, exact, terms, random, 0, max_grad_norm=math.inf, enumeration=enumeration
    )


def train_case(case: Case, subject: Subject, assistant: str, seed: int, reference: GaussianReference) -> Gaussian:
    """Train the world's generator for a case.

    Args:
        case: the objective.
        subject: the term under test.
        assistant: one of `PLANS`.
        seed: of every draw.
        reference: the world's reference.

    Returns:
        The law of the trained generator.
    """
    plan, generator = PLANS[assistant], make_generator()
    probe = case_terms(case, subject, reference, ExactAssistant(generator, reference.schedule))
    plan = replace(plan, steps=plan.steps * verification_of(probe[0].term).patience)
    optimizer = torch.optim.Adam(generator.network.parameters(), betas=BETAS)
    rates = [(optimizer, plan.rates)]
    if assistant == "exact":
        engine: Engine = exact_engine(case, subject, generator, reference, optimizer)
        batch = exact_rows(engine)
    else:
        denoiser = reference.denoiser.trainable_copy()
        assistant_optimizer = torch.optim.Adam(denoiser.network.parameters(), betas=BETAS)
        learned = LearnedAssistant(denoiser, assistant_optimizer, UniformTimes(*TIME_RANGE), math.inf)
        terms = case_terms(case, subject, reference, learned, seed)
        random = torch.Generator().manual_seed(seed)
        rounds = plan.assistant_rounds if any(uses_assistant(weighted.term) for weighted in terms) else 0
        engine = Engine(generator, optimizer, learned, terms, random, rounds, max_grad_norm=math.inf)
        rates.append((assistant_optimizer, plan.assistant_rates))
        batch = plan.batch
    average = WeightAverage(generator.network, plan.ema)
    _run(engine, plan, rates, reference.encode([PROMPT] * batch), average)
    with average.applied():
        return generator.law


def exact_rows(engine: Engine) -> int:
    """The batch of an engine without chance."""
    assert isinstance(engine, QuadratureEngine) and engine.enumeration is not None
    return engine.enumeration.rows


def _run(
    engine: Engine,
    plan: Plan,
    rates: Sequence[tuple[torch.optim.Optimizer, tuple[float, float]]],
    condition: Condition,
    average: WeightAverage,
) -> None:
    """All updates of a plan, every optimiser's rate falling between its two."""

    def set_rates(step: int) -> None:
        for optimizer, bounds in rates:
            optimizer.param_groups[0]["lr"] = rate_at(bounds, step, plan.steps)

    set_rates(0)
    for _ in range(plan.assistant_warmup if engine.assistant_rounds else 0):
        engine.update_assistant(condition)
    for step in range(plan.steps):
        set_rates(step)
        engine.step([condition] * (engine.assistant_rounds + 1), step)
        average.update()
