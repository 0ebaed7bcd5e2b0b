"""What an objective says of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..utils.device import Scalars, read_scalars
from .base import TermResult


@dataclass(frozen=True)
class ObjectiveResult:
    """The objective's gradient on a batch, and what each term said.

    Attributes:
        grad: weighted sum of the terms' gradients, like `x0`.
        results: each term's own result, unweighted, by name.
        norms: root mean square of each term's weighted gradient.
        cosines: mean cosine over the batch between each two terms' gradients, by `"a/b"`.
        details: what the mix of rewards says of each, by `"number/term"`.
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
        looked = [torch.isfinite(one).all() for term in self.results.values() for one in (term.value, term.grad)]
        return torch.stack([torch.isfinite(self.grad).all(), *looked]).all().float()


def directions(gradients: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Root mean squares of gradients, by name, and mean cosines over the batch of each two, by `"a/b"`."""
    flat = {name: one.flatten(1) for name, one in gradients.items()}
    norms = {name: one.square().mean().sqrt() for name, one in flat.items()}
    cosines = {
        f"{a}/{b}": nn.functional.cosine_similarity(flat[a], flat[b], dim=1).mean() for a, b in combinations(flat, 2)
    }
    return norms, cosines


def read_result(result: ObjectiveResult, *more: Mapping[str, Tensor]) -> tuple[ObjectiveResult, list[dict[str, float]]]:
    """A result all of whose numbers are read, and further numbers that were read in the same transfer."""
    means = {name: one.value.float().mean() for name, one in result.results.items()}
    for one in result.results.values():
        means |= {f"scores/{name}": scores.float().mean() for name, scores in one.scores.items()}
    groups: list[Scalars] = [result.norms, result.cosines, result.details, means, *more]
    groups += [one.details for one in result.results.values()]
    joined = {f"{index}/{name}": value for index, group in enumerate(groups) for name, value in group.items()}
    told = read_scalars(joined)
    answers = [{name: told[f"{index}/{name}"] for name in group} for index, group in enumerate(groups)]
    details = answers[4 + len(more) :]
    results = {
        name: replace(one, details=known) for (name, one), known in zip(result.results.items(), details, strict=True)
    }
    norms, cosines, own, known = answers[:4]
    read_out = replace(result, results=results, norms=norms, cosines=cosines, details=own, means=known)
    return read_out, answers[4 : 4 + len(more)]


def _mean(numbers: Sequence[Scalars]) -> dict[str, float | Tensor]:
    return {name: sum(one[name] for one in numbers if name in one) / len(numbers) for name in numbers[-1]}


def _merged(results: Sequence[ObjectiveResult], *, stack: bool) -> ObjectiveResult:
    def joined(tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(tensors)).mean(0) if stack else torch.cat(list(tensors))

    terms = {
        name: TermResult(
            joined([one.results[name].value for one in results]),
            joined([one.results[name].grad for one in results]),
            _mean([one.results[name].details for one in results]),
            {key: joined([one.results[name].scores[key] for one in results]) for key in last.scores},
        )
        for name, last in results[-1].results.items()
    }
    return ObjectiveResult(
        joined([one.grad for one in results]),
        terms,
        _mean([one.norms for one in results]),
        _mean([one.cosines for one in results]),
        _mean([one.details for one in results]),
        squares=_mean([one.squares for one in results]),
    )


def averaged(results: Sequence[ObjectiveResult]) -> ObjectiveResult:
    """The mean of what the objective said of each generator step's samples; each step's own values are in `details`."""
    merged = _merged(results, stack=True)
    by_step: Scalars = {
        f"step_{number}/{name}": one.value.float().mean()
        for number, result in enumerate(results, start=1)
        for name, one in result.results.items()
    }
    return replace(merged, details={**merged.details, **by_step})


def joined(results: Sequence[ObjectiveResult]) -> ObjectiveResult:
    """What the objective said of several parts of one batch, as of the whole."""
    return results[0] if len(results) == 1 else _merged(results, stack=False)
