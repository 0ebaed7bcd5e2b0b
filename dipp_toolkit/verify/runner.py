"""Training an affine generator through the real engine, terms and assistants, and comparing where it ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, cast

import torch

from ..assistant import Assistant, LearnedAssistant
from ..averaging import WeightAverage
from ..condition import Condition
from ..config import make_config
from ..engine import Engine, WeightedTerm
from ..errors import RequestError
from ..naming import unknown_name
from ..terms.base import Term, TermContext
from ..terms.catalog import build_term
from ..terms.reward import RewardTerm
from ..terms.times import Sampling, UniformTimes
from .cases import CASES, TIME_RANGE, Case, grid, make_generator, make_reference
from .gaussian import Gaussian
from .quadrature import QuadratureEngine, TimeGrid
from .rows import VerifyRow
from .world import ExactAssistant, GaussianReference

PROMPT = "a Gaussian"

BETAS = (0.0, 0.99)
"""Adam's decays. No momentum: of a generator and an assistant that chase each other, momentum makes a swing."""


@dataclass(frozen=True)
class Plan:
    """How a case is trained.

    Attributes:
        steps: generator updates.
        batch: samples an update; where they are enumerated, sigma points x times x signs of the noise.
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
    "exact": Plan(steps=300, batch=6 * 10 * 2, rates=(0.15, 1e-3), ema=0.0, tolerance=0.002),
    "learned": Plan(
        steps=400, batch=3000, rates=(0.05, 1e-3), ema=0.99, tolerance=0.02,
        assistant_rates=(0.2, 6e-3), assistant_rounds=2, assistant_warmup=50,
    ),
}  # fmt: skip


def rate_at(rates: tuple[float, float], step: int, steps: int) -> float:
    """The learning rate of an update, falling geometrically from the first value to the second."""
    first, last = rates
    return first * (last / first) ** (step / max(steps - 1, 1))


def with_sampling(term: Term, sampling: Sampling, name: str) -> Term:
    """The same term, drawing its times and noises from `sampling`.

    Raises:
        RequestError: the term is no dataclass with a field `sampling`.
    """
    if not is_dataclass(term) or "sampling" not in {one.name for one in fields(term) if one.init}:
        raise RequestError(
            f"The term '{name}' cannot be verified with the exact assistant: that enumerates times and noises, "
            "so make the term a dataclass with a field `sampling` (dipp_toolkit.terms.times.Sampling)."
        )
    return cast(Term, replace(cast(Any, term), sampling=sampling))


def make_terms(
    case: Case, term: str, reference: GaussianReference, assistant: Assistant, sampling: Sampling | None
) -> list[WeightedTerm]:
    """The objective of a case: the divergence under test, and the case's reward.

    Args:
        case: the case.
        term: the divergence's name.
        reference: the reference.
        assistant: the score model.
        sampling: put into the divergence; None leaves it as its factory made it.
    """
    config = make_config({"term": term, "guidance": case.guidance, "weighting": "uniform", "time_range": TIME_RANGE})
    rewards = {} if case.reward is None else {case.name: case.reward}
    divergence = build_term(term, TermContext(reference, assistant, config, rewards))
    if sampling is not None:
        divergence = with_sampling(divergence, sampling, term)
    explicit = [
        WeightedTerm(f"reward/{name}", RewardTerm(name, reward, reference.decode), case.reward_scale)
        for name, reward in rewards.items()
    ]
    return [WeightedTerm(term, divergence), *explicit]


def train_case(case: Case, term: str, assistant: str, seed: int, reference: GaussianReference) -> Gaussian:
    """Train the world's generator for a case.

    Args:
        case: the objective.
        term: the divergence's name.
        assistant: `"exact"`: enumerated times and noises and the closed-form score, deterministic. `"learned"`: random
            draws and a trainable copy of the reference, fitted by denoising score matching.
        seed: of every draw.
        reference: the world's reference.

    Returns:
        The law of the trained generator.
    """
    plan, generator = PLANS[assistant], make_generator()
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(generator.network.parameters(), betas=BETAS)
    if assistant == "exact":
        exact = ExactAssistant(generator, reference.schedule)
        terms = make_terms(case, term, reference, exact, TimeGrid(grid()))
        engine: Engine = QuadratureEngine(generator, optimizer, exact, terms, random, 0, max_grad_norm=math.inf)
        rates = [(optimizer, plan.rates)]
    else:
        denoiser = reference.denoiser.trainable_copy()
        assistant_optimizer = torch.optim.Adam(denoiser.network.parameters(), betas=BETAS)
        learned = LearnedAssistant(denoiser, assistant_optimizer, UniformTimes(*TIME_RANGE), math.inf)
        terms = make_terms(case, term, reference, learned, None)
        engine = Engine(generator, optimizer, learned, terms, random, plan.assistant_rounds, max_grad_norm=math.inf)
        rates = [(optimizer, plan.rates), (assistant_optimizer, plan.assistant_rates)]
    average = WeightAverage(generator.network, plan.ema)
    _run(engine, plan, rates, reference.encode([PROMPT] * plan.batch), average)
    with average.applied():
        return generator.law


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
    for _ in range(plan.assistant_warmup):
        engine.update_assistant(condition)
    for step in range(plan.steps):
        set_rates(step)
        engine.step([condition] * (plan.assistant_rounds + 1), step)
        average.update()


def run_case(
    case: Case, term: str, assistant: str, seed: int = 0, reference: GaussianReference | None = None
) -> list[VerifyRow]:
    """Train for a case and compare mean and covariance with the closed form.

    Args:
        case: the objective.
        term: the divergence's name.
        assistant: `"exact"` or `"learned"`.
        seed: of every draw.
        reference: another reference than the world's own, of another schedule or prediction type, say.
    """
    reference = reference or make_reference()
    expected, reached = case.optimum(reference, grid()), train_case(case, term, assistant, seed, reference)
    tolerance = PLANS[assistant].tolerance
    return [
        VerifyRow.compare(case.name, term, assistant, "mean", expected.mean, reached.mean, tolerance),
        VerifyRow.compare(case.name, term, assistant, "covariance", expected.covariance, reached.covariance, tolerance),
    ]


def run_verify(
    term: str = "integral_kl",
    cases: Sequence[str] | None = None,
    assistants: Sequence[str] = ("exact", "learned"),
    seed: int = 0,
) -> list[VerifyRow]:
    """Hold a divergence against every optimum known in closed form.

    Args:
        term: the divergence by name, `file.py:factory` or `module:factory`.
        cases: names of `CASES`; all of them unless said.
        assistants: `"exact"`, `"learned"` or both.
        seed: of every draw.

    Returns:
        Two rows, mean and covariance, for each case and assistant.

    Raises:
        RequestError: a name is unknown, or the term cannot be verified; the message says why.
        RunError: the term returned something that is no finite gradient.
    """
    names = list(CASES) if cases is None else list(cases)
    for name in names:
        if name not in CASES:
            raise RequestError(unknown_name("verification case", name, CASES))
    for assistant in assistants:
        if assistant not in PLANS:
            raise RequestError(unknown_name("assistant", assistant, PLANS))
    return [row for name in names for assistant in assistants for row in run_case(CASES[name], term, assistant, seed)]
