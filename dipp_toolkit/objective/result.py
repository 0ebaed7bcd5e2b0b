"""The result of an objective on a batch, and the names of its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..utils.device import Scalars, read_scalars
from .base import TermResult


def metric_name(quantity: str, *terms: str) -> str:
    """How `metrics.jsonl` calls a quantity of a term or of two: `"grad_norm/integral_kl"`, `"cosine/a/b"`.

    A reward's term is itself called `"reward/NAME"`, so names are taken apart by `terms_with` and `pair_with` alone.
    """
    return "/".join((quantity, *terms))


def terms_with(names: Iterable[str], quantity: str) -> list[str]:
    """The terms, or pairs of them, whose quantity is among these metrics' names, in order."""
    start = metric_name(quantity, "")
    return list(dict.fromkeys(name.removeprefix(start) for name in names if name.startswith(start)))


def pair_with(pair: str, terms: Sequence[str]) -> tuple[str, str] | None:
    """Two terms of a pair such as `"integral_kl/reward/emoji-clip"`; None where they are not among these.

    Args:
        pair: of `terms_with`.
        terms: every term of the objective.
    """
    halves = ((term, pair.removeprefix(f"{term}/")) for term in terms if pair.startswith(f"{term}/"))
    return next((both for both in halves if both[1] in terms), None)


def reward_term(reward: str) -> str:
    """The name of a reward's term."""
    return metric_name("reward", reward)


@dataclass(frozen=True)
class ObjectiveResult:
    """The objective's gradient on a batch, and each term's result.

    Attributes:
        grad: weighted sum of the terms' gradients, like `x0`.
        results: each term's own result, unweighted, by name.
        norms: root mean square of each term's weighted gradient.
        cosines: mean cosine over the batch between each two terms' gradients, by `"a/b"`.
        details: numbers of the mix for each reward, by `"number/term"`.
        means: of each term's value, by its name, and of the scores it reports, by `"scores/reward"`.
        skipped: why the update was not made; empty where it was.
        squares: mean squares of what is added up of the `rewards`' gradients, and of the `divergences`'.
    """

    grad: Float[Tensor, "batch ..."]
    results: Mapping[str, TermResult]
    norms: Scalars
    cosines: Scalars
    details: Scalars = field(default_factory=dict)
    means: Scalars = field(default_factory=dict)
    skipped: str = ""
    squares: Scalars = field(default_factory=dict)

    @property
    def sound(self) -> Float[Tensor, ""]:
        """1 where every value and gradient is finite, 0 where one is not."""
        checks = [torch.isfinite(tensor).all() for term in self.results.values() for tensor in (term.value, term.grad)]
        return torch.stack([torch.isfinite(self.grad).all(), *checks]).all().float()


def directions(gradients: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Root mean squares of gradients, by name, and mean cosines over the batch of each two, by `"a/b"`."""
    flat = {name: gradient.flatten(1) for name, gradient in gradients.items()}
    norms = {name: gradient.square().mean().sqrt() for name, gradient in flat.items()}
    cosines = {
        metric_name(a, b): nn.functional.cosine_similarity(flat[a], flat[b], dim=1).mean()
        for a, b in combinations(flat, 2)
    }
    return norms, cosines


def read_result(result: ObjectiveResult, *more: Mapping[str, Tensor]) -> tuple[ObjectiveResult, list[dict[str, float]]]:
    """A result whose numbers are read off the device, and further numbers read in the same transfer."""
    means = {name: term.mean_value for name, term in result.results.items()}
    for term in result.results.values():
        means |= {metric_name("scores", name): scores.float().mean() for name, scores in term.scores.items()}
    groups: list[Scalars] = [result.norms, result.cosines, result.details, means, *more]
    groups += [term.details for term in result.results.values()]
    joined = {f"{index}/{name}": value for index, group in enumerate(groups) for name, value in group.items()}
    numbers = read_scalars(joined)
    answers = [{name: numbers[f"{index}/{name}"] for name in group} for index, group in enumerate(groups)]
    details = answers[4 + len(more) :]
    results = {
        name: replace(term, details=details_of_term)
        for (name, term), details_of_term in zip(result.results.items(), details, strict=True)
    }
    norms, cosines, mixture, mean_values = answers[:4]
    read_out = replace(result, results=results, norms=norms, cosines=cosines, details=mixture, means=mean_values)
    return read_out, answers[4 : 4 + len(more)]


def _mean(numbers: Sequence[Scalars]) -> dict[str, float | Tensor]:
    """Of every number of the last group over the groups that have it."""
    having = {name: [group[name] for group in numbers if name in group] for name in numbers[-1]}
    return {name: sum(values) / len(values) for name, values in having.items()}


def _merged(results: Sequence[ObjectiveResult], *, stack: bool) -> ObjectiveResult:
    def joined(tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(tensors)).mean(0) if stack else torch.cat(list(tensors))

    terms = {}
    for name, last in results[-1].results.items():
        own = [result.results[name] for result in results]
        value, counted = _values(own, stack=stack)
        # A term may score the samples of some steps alone.
        scores = {key: joined([part.scores[key] for part in own if key in part.scores]) for key in last.scores}
        details = _mean([part.details for part in own])
        terms[name] = TermResult(
            value, joined([part.grad for part in own]), details, scores, last.predicted, counted=counted
        )
    return ObjectiveResult(
        joined([result.grad for result in results]),
        terms,
        _mean([result.norms for result in results]),
        _mean([result.cosines for result in results]),
        _mean([result.details for result in results]),
        squares=_mean([result.squares for result in results]),
    )


def _values(terms: Sequence[TermResult], *, stack: bool) -> tuple[Tensor, Tensor | None]:
    """The values of several results, and which of them were measured, None where all were; of a stack each sample's
    mean over the results that measured it."""
    values = [term.value for term in terms]
    if all(term.counted is None for term in terms):
        return (torch.stack(values).mean(0) if stack else torch.cat(values)), None
    counts = [torch.ones_like(term.value) if term.counted is None else term.counted for term in terms]
    if not stack:
        return torch.cat(values), torch.cat(counts)
    counted = torch.stack(counts).sum(0)
    value = (torch.stack(values) * torch.stack(counts)).sum(0) / counted.clamp_min(1)
    return value, (counted > 0).to(value.dtype)


def averaged(results: Sequence[ObjectiveResult]) -> ObjectiveResult:
    """The mean of the results of all generator steps; each step's own values are in `details`."""
    merged = _merged(results, stack=True)
    by_step: Scalars = {
        metric_name(f"step_{number}", name): term.mean_value
        for number, result in enumerate(results, start=1)
        for name, term in result.results.items()
    }
    return replace(merged, details={**merged.details, **by_step})


def joined(results: Sequence[ObjectiveResult]) -> ObjectiveResult:
    """The results of several parts of one batch as that of the whole."""
    return results[0] if len(results) == 1 else _merged(results, stack=False)
