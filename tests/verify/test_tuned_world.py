"""A reference that learned samples moved by a known shift, and a generator that follows it, both ways."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.experiments.tuning.adapter import AdapterPlan, AdapterTraining
from dipp_toolkit.objective.gaussians import Gaussian
from dipp_toolkit.verify import run_verify
from dipp_toolkit.verify.cases import CASES, make_reference
from dipp_toolkit.verify.training import train_case
from dipp_toolkit.verify.world import GaussianReference
from dipp_toolkit.verify.world_terms import Subject

SHIFT = torch.tensor([1.0, -0.5, 0.8], dtype=torch.float64)
SAMPLES = 2000
TUNED: list[GaussianReference] = []


def standard_reference() -> GaussianReference:
    """The law N(0, I), whatever the prompt."""
    law = Gaussian(torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64))
    return replace(make_reference(), empty=law, given=law)


def moved_samples() -> Tensor:
    """Samples whose mean is exactly the shift and whose covariance is exactly I: no chance in what is to be learned."""
    raw = torch.randn(SAMPLES, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centred = raw - raw.mean(0)
    white = centred @ torch.linalg.inv(torch.linalg.cholesky(centred.mT @ centred / SAMPLES)).mT
    return (SHIFT + white).reshape(-1, 3, 1, 1)


def learned_reference() -> GaussianReference:
    """The reference after its network learned the samples by its own denoising loss, as a tuning's first stage does."""
    if not TUNED:
        reference = standard_reference()
        denoiser = reference.denoiser.trainable_copy()
        conditions = reference.encode(["a Gaussian"] * SAMPLES + [""])
        plan = AdapterPlan(steps=2000, batch=1000, learning_rate=0.01, ema=0.998)
        training = AdapterTraining(denoiser, moved_samples(), conditions, plan)
        for _ in range(plan.steps):
            training.one_step()
        with training.average.applied():
            reference.denoiser = training.denoiser.trainable_copy().frozen()
        TUNED.append(reference)
    return TUNED[0]


@pytest.mark.parametrize("way", ["reference", "difference"])
def test_the_generator_lands_on_a_shift_that_the_reference_learned(way: str) -> None:
    tuned = learned_reference()
    case = CASES["distillation"]
    if way == "reference":
        subject, reference = Subject("integral_kl", {}), tuned
    else:
        subject = Subject("tuned_difference", {"tuned": f"{__name__}:learned_reference"})
        reference = standard_reference()
    law = train_case(case, subject, "exact", 0, reference)
    assert (law.mean - SHIFT).norm() < 0.02 * SHIFT.norm()
    assert (law.covariance - torch.eye(3)).norm() < 0.02 * 3**0.5


def test_the_term_has_its_closed_form() -> None:
    rows = run_verify("tuned_difference", ["guidance"], ["exact"])
    assert len(rows) == 6
    assert all(row.passed for row in rows), [(row.quantity, row.error) for row in rows]


@pytest.mark.exhaustive
def test_a_strength_goes_beyond_what_was_learned() -> None:
    options: dict[str, Any] = {"tuned": "dipp_toolkit.verify.tuned_world:tuned_reference", "strength": 1.5}
    mean, covariance, gradient = run_verify("tuned_difference", ["distillation"], ["exact"], options=options)
    assert mean.passed and covariance.passed and gradient.passed
    # Beyond the tuned mean, on the line from the reference's: their covariances differ, so not by half exactly.
    base, shift = torch.tensor([0.6, -0.4, 0.5]), torch.tensor([0.8, -0.5, 0.3])
    way = (torch.tensor(mean.reached) - base) @ shift / shift.square().sum()
    assert 1.2 < way < 2.5


def test_a_tuned_reference_has_to_be_named() -> None:
    with pytest.raises(RequestError, match=r"needs a tuned reference.*term\.tuned_difference\.tuned=FOLDER"):
        run_verify("tuned_difference", ["distillation"], ["exact"], options={"strength": 1.0})
