"""The objective's terms with their weights, and their gradients added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ..distributed import Processes
from ..errors import BadNumbers, DippError, RunError
from ..utils.device import Scalars
from ..utils.precision import full_precision
from .base import ExplainingTerm, Sample, Side, Term, TermResult, side_of
from .mixing.mix import Mixed, RewardMix
from .mixing.statistics import mean_square
from .result import ObjectiveResult, directions


@dataclass(frozen=True)
class WeightedTerm:
    """A term of the objective by name, with its weight (a reward's is alpha_rew times its own).

    Attributes:
        mixed: whether it is one of the rewards that are balanced against each other.
    """

    name: str
    term: Term
    weight: float = 1.0
    mixed: bool = False


def evaluate_objective(
    terms: Sequence[WeightedTerm],
    sample: Sample,
    mix: RewardMix | None = None,
    processes: Processes | None = None,
) -> ObjectiveResult:
    """Call every term, one after the other, and add up their weighted gradients.

    Whether they are finite is not looked at. The result's numbers are tensors yet; `read_result` reads them.

    Args:
        terms: the objective.
        sample: what the generator made.
        mix: balances the mixed terms; without one they are added up as they are.
        processes: those that share the batch. Where a term fails in one, it has failed in all: nobody waits for what
            that one will not send.

    Raises:
        RunError: a term returned a gradient of another shape.
        BadNumbers: the gradients cannot be balanced.
    """
    processes = processes or Processes()
    results: dict[str, TermResult] = {}
    for one in terms:
        results[one.name] = processes.together(partial(_called, one, sample))
    gradients = {one.name: one.weight * results[one.name].grad.to(sample.x0.dtype) for one in terms}
    added = gradients
    details: Scalars = {}
    divergence = _summed(gradients, terms, "divergences", sample)
    mixed = [one for one in terms if one.mixed] if mix is not None else []
    if mix is not None and mixed:
        rest = sum((gradients[one.name] for one in terms if not one.mixed), torch.zeros_like(sample.x0))
        answers, weights = {one.name: results[one.name] for one in mixed}, {one.name: one.weight for one in mixed}
        kl = _kl_of(terms, results)
        found = processes.together(partial(_mixed, mix, answers, weights, rest, divergence, sample, kl))
        added, details = {**gradients, **found.added}, found.details
        gradients = {**gradients, **found.contributions}
    norms, cosines = directions(gradients)
    rewards = _summed(added, terms, "rewards", sample)
    squares = {"rewards": mean_square(rewards), "divergences": mean_square(divergence)}
    grad = torch.stack(list(added.values())).sum(0)
    return ObjectiveResult(grad, results, norms, cosines, details, squares=squares)


def _summed(gradients: Mapping[str, Tensor], terms: Sequence[WeightedTerm], side: Side, sample: Sample) -> Tensor:
    """The gradients of the terms of one side, added up."""
    some = (gradients[one.name] for one in terms if side_of(one.term) == side)
    return sum(some, torch.zeros_like(sample.x0))


def _kl_of(terms: Sequence[WeightedTerm], results: Mapping[str, TermResult]) -> Tensor | None:
    """The integral KL as the first divergence reports it."""
    told = (results[one.name].details for one in terms if side_of(one.term) == "divergences")
    return next((torch.as_tensor(details["kl"]) for details in told if "kl" in details), None)


def _called(one: WeightedTerm, sample: Sample) -> TermResult:
    result = one.term(sample)
    if result.grad.shape != sample.x0.shape or result.value.shape != sample.x0.shape[:1]:
        raise RunError(
            f"The term '{one.name}' returned a value of shape {tuple(result.value.shape)} and a gradient of shape "
            f"{tuple(result.grad.shape)}; expected {tuple(sample.x0.shape[:1])} and {tuple(sample.x0.shape)}."
        )
    return result


def _mixed(
    mix: RewardMix,
    answers: Mapping[str, TermResult],
    weights: Mapping[str, float],
    rest: Tensor,
    divergence: Tensor,
    sample: Sample,
    kl: Tensor | None,
) -> Mixed:
    try:
        with full_precision(sample.x0.device):  # products of gradients are no pass of a network
            return mix(answers, weights, rest, sample.random, divergence, sample.step, kl)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise BadNumbers("The rewards' gradients cannot be balanced: they are not finite.") from error


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
