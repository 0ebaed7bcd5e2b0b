r"""Whether the generator follows the gradient of the integral KL, whatever positive weighting the loop has.

On a sample the gradient has to be $c\, (\hat x_0^{fake} - \hat x_0^{ref})$ with $c > 0$, minus the reward's. Both sides
are known in closed form at the very points where the loop looked, so the direction is compared row by row, and $c$ is
measured. The gradient on the generator's parameters is then compared with autograd of
$\sum_i c(t_i) (\sigma_i/\alpha_i)^2\, KL(p_{t_i} \| q_{t_i})$ where $c$ is a function of time, and with
$\sum_i c_i\, (\hat x_0^{fake} - \hat x_0^{ref})\, \partial x_0 / \partial \theta$ where it depends on the sample as
well, as DMD's normaliser does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import kl_divergence

from ...objective.gaussians import Gaussian
from ..rows import LoopRow
from .adapter import Adapter, call
from .evidence import ERRORS, SIZE, Evidence
from .fake_score import FOLLOWED, distance
from .networks import Exact
from .recording import GeneratorUpdate, Query

DIRECTION = 0.01
"""1 - cosine of a sample's gradient with what it should be."""

SPREAD = 0.05
"""Relative spread of the weighting among samples of one time, beyond which it is no function of time."""

MOST_APART = 0.5
"""Distance of two unit vectors that no standard error excuses."""

LEAST_ALPHA = 1e-4
"""Below it a signal coefficient counts as this much."""


@dataclass
class QueryGradient:
    """The samples of one query.

    Attributes:
        law: number of the generator's law.
        query: the calls.
        batch: samples of the whole update.
        grad: on each sample.
        guided: the fake score's denoised sample minus the reference's without a prompt, summed over the points that
            were looked at.
        prompt: the reference's denoised sample with a prompt minus that without, summed likewise.
        difference: what the gradient has to be along.
        alpha: of the only point looked at for each sample; None where there are several.
        sigma: likewise.
        timestep: likewise.
        weight: c of each sample, measured.
    """

    law: int
    query: Query
    batch: int
    grad: Float[Tensor, "batch dimension"]
    guided: Float[Tensor, "batch dimension"]
    prompt: Float[Tensor, "batch dimension"]
    difference: Float[Tensor, "batch dimension"]
    alpha: Tensor | None
    sigma: Tensor | None
    timestep: Tensor | None
    weight: Tensor


def query_gradient(evidence: Evidence, update: GeneratorUpdate, query: Query) -> QueryGradient:
    """The closed forms at the points of a query; its calls without a prompt are not points of the loss."""
    made, exact = query.made, evidence.exact[update.law]
    given, empty = Exact(evidence.data, evidence.data), Exact(evidence.target_empty, evidence.target_empty)
    size, guided, prompt = len(made.x_t), torch.zeros_like(made.x0), torch.zeros_like(made.x0)
    points: list[tuple[Tensor | None, Tensor | None, Tensor | None]] = []
    for seen in query.seen:
        for start in range(0, len(seen.x_t), size):
            rows = slice(start, start + size)
            if not seen.given[rows].any():
                continue
            x_t, level = seen.x_t[rows], (seen.alpha[rows], seen.sigma[rows])
            ones = torch.ones(size, dtype=torch.float64)
            without = empty(x_t, *level, ones)
            guided = guided + exact(x_t, *level, ones) - without
            prompt = prompt + given(x_t, *level, ones) - without
            points.append((*level, seen.timestep[rows]))
    alpha, sigma, timestep = points[0] if len(points) == 1 else (None, None, None)
    assert made.grad is not None
    batch = sum(len(other.made.x_t) for other in update.queries)
    return QueryGradient(
        update.law, query, batch, made.grad, guided, prompt, guided - evidence.guidance * prompt,
        alpha, sigma, timestep,
        torch.zeros(size, dtype=torch.float64),
    )  # fmt: skip


def without(direction: Tensor, x: Tensor) -> Tensor:
    """Rows of x without their part along rows of `direction`."""
    along = (direction * x).sum(1) / direction.square().sum(1).clamp(min=1e-30)
    return x - along[:, None] * direction


def gradient_rows(evidence: Evidence, adapter: Adapter) -> Iterator[LoopRow]:
    """Direction on samples, guidance, reward, stated weighting, and the gradient on the parameters."""
    queries = [
        [query_gradient(evidence, update, query) for query in update.queries] for update in evidence.generator_updates
    ]  # fmt: skip
    every = [query for update in queries for query in update]
    reward = 0.0
    if evidence.slope is not None:
        reward = _reward_factor(every, evidence.slope)
        for query in every:  # what is left is the divergence's
            query.grad = query.grad + reward / query.batch * evidence.slope
    for query in every:
        query.weight = (query.grad * query.difference).sum(1) / query.difference.square().sum(1).clamp(min=1e-30)
    yield _direction(evidence, every)
    if evidence.guidance != 1:
        yield _guidance(evidence, every)
    if evidence.slope is not None:
        yield evidence.row(
            "reward", 1.0, reward, SIZE,
            "The reward's gradient on a sample, as a multiple of reward_scale times its own over the batch, is not "
            "1. Negative: the reward is minimised; 0: it does not reach the generator; another number: another "
            "scale, or a sum in the place of a mean.",
        )  # fmt: skip
    if adapter.weighting is not None:
        yield _weighting(evidence, adapter, every)
    yield _followed(evidence)
    yield _parameters(evidence, queries, reward)


def _reward_factor(every: list[QueryGradient], slope: Tensor) -> float:
    """The reward's part of the gradients, by least squares with the divergence's direction left out."""
    above, below = 0.0, 0.0
    for query in every:
        across = without(query.difference, slope.expand_as(query.grad))
        above -= (across * query.grad).sum().item()
        below += across.square().sum().item() / query.batch
    return above / below if below else math.nan


def _direction(evidence: Evidence, every: list[QueryGradient]) -> LoopRow:
    cosine = torch.cat([torch.nn.functional.cosine_similarity(query.grad, query.difference) for query in every])
    size = torch.cat([query.difference.norm(dim=1) for query in every])
    mean = ((cosine * size).sum() / size.sum()).item()
    if mean < -0.9:
        meaning = (
            "The gradient on a sample points away from the reference (the number is a cosine): a wrong sign, or fake "
            "score and reference in each other's place. It has to be along x_0 of the fake score minus x_0 of the "
            "reference."
        )
    else:
        meaning = (
            "The gradient on a sample is not along x_0 of the fake score minus x_0 of the reference (the number is a "
            "cosine). Usual causes: a missing detach or torch.no_grad, so that it goes through the fake score, the "
            "reference or the normaliser; guidance of another strength, or on the fake score; networks' outputs "
            "compared at different times; a loss of another kind than the KL's."
        )
    return evidence.row("gradient on samples", 1.0, mean, DIRECTION, meaning)


def _guidance(evidence: Evidence, every: list[QueryGradient]) -> LoopRow:
    """The guidance with which the gradients are most nearly along the difference."""
    above, below = 0.0, 0.0
    for query in every:
        across = without(query.grad, query.prompt)
        above += (across * query.guided).sum().item()
        below += (across * query.prompt).sum().item()
    reached = above / below if below else math.nan
    if abs(reached - evidence.guidance - 1) < SIZE * evidence.guidance:
        cause = (
            "one more than asked: x(c) + w (x(c) - x(no prompt)) in the place of x(no prompt) + w (x(c) - x(no "
            "prompt)). A value ported from the one convention to the other changes by 1."
        )
    elif abs(reached - 1) < SIZE:
        cause = "none: world.guidance is not followed."
    elif abs(reached) < SIZE:
        cause = "the reference without a prompt."
    else:
        cause = "another than asked. Usual causes: guidance on the fake score, the prompts swapped, another convention."
    meaning = f"The target is that of a guidance of {reached:.3g}: {cause}"
    return evidence.row("guidance", evidence.guidance, reached, SIZE * evidence.guidance, meaning)


def _weighting(evidence: Evidence, adapter: Adapter, every: list[QueryGradient]) -> LoopRow:
    ratios = []
    for query in every:
        if query.alpha is None or query.sigma is None:
            continue
        stated = call(adapter, "its weighting", adapter.weighting or (lambda *_: None), query.alpha, query.sigma)
        ratios.append(query.weight * query.batch / torch.as_tensor(stated, dtype=torch.float64))
    ratio = torch.cat(ratios) if ratios else torch.full((1,), math.nan, dtype=torch.float64)
    middle = ratio.median()
    furthest = middle + (ratio - middle).abs().median() * torch.sign(middle - 1)
    meaning = (
        "The weight before the difference of denoised samples, the loss being a mean over the batch, is this "
        "multiple of the one that the adapter states. Usual causes: a mean over pixels too (1/3 here), 2 of a square "
        "without its 1/2, the weight of a prediction in the place of the sample's."
    )
    return evidence.row("weighting", 1.0, furthest.item(), SIZE, meaning)


def _followed(evidence: Evidence) -> LoopRow:
    """The optimiser's gradient against what came back to the generator's calls that the divergence looked at."""
    distances = []
    for update in evidence.generator_updates:
        matrix, bias = (torch.zeros_like(tensor) for tensor in evidence.parameters[update.law])
        through = any(query.made.with_graph for query in update.queries)
        for made in update.calls if through else [query.made for query in update.queries]:
            assert made.grad is not None
            matrix.index_add_(0, made.step, made.grad[:, :, None] * made.x_t[:, None])
            bias.index_add_(0, made.step, made.grad)
        distances.append(distance(update.grad.double(), _flat(matrix, bias)))
    meaning = (
        "The generator's optimiser follows more than the gradient of the generator's loss in this update. Usual "
        "causes: no zero_grad; a gradient that the fake score's loss left, whose samples are not detached."
    )
    return evidence.row("gradient followed", 0.0, sum(distances) / len(distances), FOLLOWED, meaning)


def _parameters(evidence: Evidence, queries: list[list[QueryGradient]], reward: float) -> LoopRow:
    timed = _by_time(queries)
    by_law: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for update, own in zip(evidence.generator_updates, queries, strict=True):
        points = _pointwise(evidence, own, reward)
        expected = _closed_form(evidence, own, reward) if timed else points
        # What a clipped norm or a loss scale multiplied this update by; it changes no direction.
        factor = (update.grad.double() @ points).abs() / points.square().sum()
        by_law.setdefault(update.law, []).append((expected, update.grad.double() / factor))
    reached, tolerance = 0.0, SIZE
    for pairs in by_law.values():
        expected, followed = (torch.stack(vectors) for vectors in zip(*pairs, strict=True))
        rest = followed - expected
        count = len(rest)
        variance = (rest - rest.mean(0)).square().sum() * (count / max(count - 1, 1))
        spread = variance.sqrt() / expected.sum(0).norm()
        apart = distance(expected.sum(0), followed.sum(0))
        allowed = max(SIZE, min(ERRORS / 2 * spread.item(), MOST_APART)) if timed else SIZE
        if not apart / allowed <= reached / tolerance:
            reached, tolerance = apart, allowed
    how = (
        "closed form"
        if timed
        else "the closed form at the points where the loop looked, its weighting depending on the sample"
    )
    meaning = (
        f"The generator's gradient in its parameters is not the integral KL's ({how}; the number is the distance of "
        "the two unit vectors). If the rows 'gradient on samples' and 'gradient followed' hold, the samples are not "
        "those of this generator in sampling, or a graph through earlier steps is cut on one way only; otherwise see "
        "those rows."
    )
    return evidence.row("gradient on parameters", 0.0, reached, tolerance, meaning)


def _by_time(queries: list[list[QueryGradient]]) -> bool:
    """Whether the measured weighting is a function of time: samples of neighbouring times have the same."""
    weights, times = [], []
    for own in queries:
        for query in own:
            if query.timestep is None:
                return False
            weights.append((query.weight.abs() * query.batch).clamp(min=1e-30).log())
            times.append(query.timestep)
    ordered = torch.cat(weights)[torch.cat(times).argsort()]
    return bool(ordered.diff().square().mean().div(2).sqrt() < SPREAD)


def _closed_form(evidence: Evidence, own: list[QueryGradient], reward: float) -> Tensor:
    """Autograd of the KL between noised laws, weighed as measured, at the times that were drawn."""
    total = torch.zeros((), dtype=torch.float64)
    matrices, biases = (tensor.clone().requires_grad_(True) for tensor in evidence.parameters[own[0].law])
    through = evidence.chain.reads(matrices, biases)
    for query in own:
        assert query.alpha is not None
        assert query.sigma is not None
        alpha, sigma, step = query.alpha.clamp(min=LEAST_ALPHA), query.sigma, query.query.made.step
        for number in step.unique().tolist():
            rows = step == number
            read = through[number] if query.query.made.with_graph else evidence.reads[query.law][number]
            law = evidence.chain.made(read, matrices[number], biases[number])
            weights = query.weight[rows].abs() * (sigma[rows] / alpha[rows]).square()
            total = total + (weights * _divergence(law, evidence.target, alpha[rows], sigma[rows])).sum()
            if evidence.slope is not None:
                total = total - abs(reward) / query.batch * rows.sum() * (law.mean @ evidence.slope)
    total.backward()
    return _flat(matrices.grad, biases.grad)


def _divergence(law: Gaussian, target: Gaussian, alpha: Tensor, sigma: Tensor) -> Tensor:
    return kl_divergence(law.noised(alpha, sigma), target.noised(alpha, sigma))


def _pointwise(evidence: Evidence, own: list[QueryGradient], reward: float) -> Tensor:
    """The gradient of each sample where it was looked at, taken to the parameters of the step that made it."""
    matrix, bias = (torch.zeros_like(tensor) for tensor in evidence.parameters[own[0].law])
    for query in own:
        grad = query.weight.abs()[:, None] * query.difference
        if evidence.slope is not None:
            grad = grad - abs(reward) / query.batch * evidence.slope
        made = query.query.made
        matrix.index_add_(0, made.step, grad[:, :, None] * made.x_t[:, None])
        bias.index_add_(0, made.step, grad)
    return _flat(matrix, bias)


def _flat(matrix: Tensor | None, bias: Tensor | None) -> Tensor:
    assert matrix is not None
    assert bias is not None
    return torch.cat([matrix.flatten(), bias.flatten()])
