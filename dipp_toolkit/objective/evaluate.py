"""The objective's terms with their weights, the sum of their gradients, and the causes of non-finite numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ..distributed import Processes
from ..errors import BadNumbers, DippError, RunError
from ..utils.precision import full_precision
from ..utils.step_parts import OBJECTIVE, step_part
from .base import ExplainingTerm, Sample, Side, Term, TermResult, side_of
from .mixing.mix import Joint, Mixed, RewardMix
from .mixing.statistics import mean_square
from .result import ObjectiveResult, directions
from .terms.joint_rewards import differentiate_together, joinable
from .terms.reward import RewardTerm


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


@step_part(OBJECTIVE)
def evaluate_objective(
    terms: Sequence[WeightedTerm],
    sample: Sample,
    mix: RewardMix | None = None,
    processes: Processes | None = None,
) -> ObjectiveResult:
    """Call every term, one after the other, and add up their weighted gradients.

    They are not checked to be finite. The result's numbers are still tensors; `read_result` reads them.

    Args:
        terms: the objective.
        sample: what the generator made.
        mix: balances the mixed terms; without one they are added up as they are.
        processes: those that share the batch. A term that fails in one fails in all, so that no process waits for what
            that process will not send.

    Raises:
        RunError: a term returned a gradient of another shape.
        BadNumbers: the gradients cannot be balanced.
    """
    processes = processes or Processes()
    mixed = [weighted for weighted in terms if weighted.mixed] if mix is not None else []
    results, joint = _evaluated(terms, mixed, mix, sample, processes)
    together = joint.factors if joint is not None else {}
    gradients = {
        weighted.name: weighted.weight * results[weighted.name].grad.to(sample.x0.dtype)
        for weighted in terms
        if weighted.name not in together
    }
    divergence = _summed(gradients, terms, "divergences", sample)
    mixture = Mixed({}, {}, {})
    if mix is not None and mixed:
        mixture = processes.together(partial(_mixed, mix, terms, mixed, results, gradients, divergence, sample, joint))
    added = {**gradients, **mixture.added}
    norms, cosines = directions(_shown({**gradients, **mixture.contributions}, terms, joint))
    rewards, parts = _summed(added, terms, "rewards", sample), list(added.values())
    if joint is not None:
        rewards, parts = rewards + joint.gradient, [*parts, joint.gradient]
    squares = {"rewards": mean_square(rewards), "divergences": mean_square(divergence)}
    return ObjectiveResult(torch.stack(parts).sum(0), results, norms, cosines, mixture.details, squares=squares)


def _evaluated(
    terms: Sequence[WeightedTerm],
    mixed: Sequence[WeightedTerm],
    mix: RewardMix | None,
    sample: Sample,
    processes: Processes,
) -> tuple[dict[str, TermResult], Joint | None]:
    """Every term's result, in the terms' order; rewards that go through the decoder together do so where the first of
    them stands, and have no gradients of their own."""
    joining = processes.together(partial(_joining, mixed, mix, sample))
    results: dict[str, TermResult] = {}
    joint: Joint | None = None
    for weighted in terms:
        if weighted.name not in joining:
            results[weighted.name] = processes.together(partial(_called, weighted, sample))
        elif joint is None:
            joint, together = processes.together(partial(_differentiated, joining, sample))
            results |= together
    return {weighted.name: results[weighted.name] for weighted in terms}, joint


def _differentiated(
    joining: Mapping[str, tuple[RewardTerm, Tensor | float]], sample: Sample
) -> tuple[Joint, dict[str, TermResult]]:
    """What rewards that go through the decoder together contribute, and the scores of each."""
    factors = {name: factor for name, (_, factor) in joining.items()}
    scores, gradient = differentiate_together({name: term for name, (term, _) in joining.items()}, factors, sample)
    results = {
        name: TermResult(own, own.new_zeros((len(own), 0)), joining[name][0].reported()) for name, own in scores.items()
    }
    return Joint(factors, gradient.to(sample.x0.dtype)), results


def _shown(gradients: Mapping[str, Tensor], terms: Sequence[WeightedTerm], joint: Joint | None) -> dict[str, Tensor]:
    """The gradients whose sizes and directions are logged: no reward's where some went through the decoder together,
    since the size of a part of the rewards would be taken for that of all."""
    if joint is None:
        return dict(gradients)
    return {weighted.name: gradients[weighted.name] for weighted in terms if not weighted.mixed}


def _summed(gradients: Mapping[str, Tensor], terms: Sequence[WeightedTerm], side: Side, sample: Sample) -> Tensor:
    """The gradients of the terms of one side, added up."""
    gradients_of_side = (
        gradients[weighted.name] for weighted in terms if side_of(weighted.term) == side and weighted.name in gradients
    )
    return sum(gradients_of_side, torch.zeros_like(sample.x0))


def _kl_of(terms: Sequence[WeightedTerm], results: Mapping[str, TermResult]) -> Tensor | None:
    """The integral KL as the first divergence reports it."""
    reports = (results[weighted.name].details for weighted in terms if side_of(weighted.term) == "divergences")
    return next((torch.as_tensor(details["kl"]) for details in reports if "kl" in details), None)


def _joining(
    mixed: Sequence[WeightedTerm], mix: RewardMix | None, sample: Sample
) -> dict[str, tuple[RewardTerm, Tensor | float]]:
    """The rewards that go through the decoder together, each with what its gradient is multiplied by."""
    if mix is None or len(mixed) < 2:
        return {}
    factors = mix.factors_ahead({weighted.name: weighted.weight for weighted in mixed}, sample.step)
    if factors is None:
        return {}
    rewards = joinable({weighted.name: weighted.term for weighted in mixed}, sample)
    return {name: (term, factors[name]) for name, term in rewards.items()}


def _called(weighted: WeightedTerm, sample: Sample) -> TermResult:
    result = weighted.term(sample)
    if result.grad.shape != sample.x0.shape or result.value.shape != sample.x0.shape[:1]:
        raise RunError(
            f"The term '{weighted.name}' returned a value of shape {tuple(result.value.shape)} and a gradient of shape "
            f"{tuple(result.grad.shape)}; expected {tuple(sample.x0.shape[:1])} and {tuple(sample.x0.shape)}."
        )
    return result


def _mixed(
    mix: RewardMix,
    terms: Sequence[WeightedTerm],
    mixed: Sequence[WeightedTerm],
    results: Mapping[str, TermResult],
    gradients: Mapping[str, Tensor],
    divergence: Tensor,
    sample: Sample,
    joint: Joint | None,
) -> Mixed:
    """What the rewards contribute once they are balanced, beside the other terms' gradients."""
    rest = sum((gradients[weighted.name] for weighted in terms if not weighted.mixed), torch.zeros_like(sample.x0))
    answers = {weighted.name: results[weighted.name] for weighted in mixed}
    weights = {weighted.name: weighted.weight for weighted in mixed}
    kl = _kl_of(terms, results)
    try:
        with full_precision(sample.x0.device):  # products of gradients are not a network's pass
            return mix(answers, weights, rest, sample.random, divergence, sample.step, kl, joint)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise BadNumbers("The rewards' gradients cannot be balanced: they are not finite.") from error


def find_cause(terms: Sequence[WeightedTerm], sample: Sample, results: Mapping[str, TermResult]) -> str:
    """Which part of the objective produced numbers that are not finite, as part of a sentence; empty where none did.

    Args:
        terms: the objective.
        sample: the batch.
        results: of the terms on it, by name.
    """
    if not torch.isfinite(sample.x0).all():
        return "the generator's samples are not finite"
    causes = []
    for weighted in terms:
        result = results.get(weighted.name)
        if result is not None and result.value.numel() and not result.grad.numel():
            result = _by_itself(weighted, sample, result)
        if result is None or bool(torch.isfinite(result.grad).all() & torch.isfinite(result.value).all()):
            continue
        causes.append(_explained(weighted, sample, result))
    return "; ".join(causes)


def _by_itself(weighted: WeightedTerm, sample: Sample, result: TermResult) -> TermResult:
    """A reward's result with its own gradient, which was computed together with others'."""
    try:
        return weighted.term(replace(sample, random=torch.Generator(sample.random.device).manual_seed(0)))
    except DippError:
        return result


def _explained(weighted: WeightedTerm, sample: Sample, result: TermResult) -> str:
    plain = f"the gradient of the term '{weighted.name}' is not finite"
    if not isinstance(weighted.term, ExplainingTerm):
        return plain
    # The run's own random numbers are left alone.
    random = torch.Generator(sample.random.device).manual_seed(0)
    try:
        return weighted.term.explain(replace(sample, random=random), result) or plain
    except DippError as error:
        return f"{plain}, and looking for the reason failed: {error}"
