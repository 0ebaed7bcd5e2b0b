"""Where numbers that are not finite came from: asked only once there are some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from ..errors import DippError
from .base import ExplainingTerm, Sample, TermResult
from .evaluate import WeightedTerm


def find_cause(terms: Sequence[WeightedTerm], sample: Sample, results: Mapping[str, TermResult]) -> str:
    """Which part of the objective gave numbers that are not finite, as part of a sentence; empty where none did.

    Args:
        terms: the objective.
        sample: what they were asked about.
        results: what they said.
    """
    if not torch.isfinite(sample.x0).all():
        return "the generator's samples are not finite"
    causes = []
    for one in terms:
        result = results.get(one.name)
        if result is None or bool(torch.isfinite(result.grad).all() & torch.isfinite(result.value).all()):
            continue
        causes.append(_explained(one, sample, result))
    return "; ".join(causes)


def _explained(one: WeightedTerm, sample: Sample, result: TermResult) -> str:
    plain = f"the gradient of the term '{one.name}' is not finite"
    if not isinstance(one.term, ExplainingTerm):
        return plain
    # The run's own random numbers are left alone.
    random = torch.Generator(sample.random.device).manual_seed(0)
    try:
        return one.term.explain(replace(sample, random=random), result) or plain
    except DippError as error:
        return f"{plain}, and looking for the reason failed: {error}"
