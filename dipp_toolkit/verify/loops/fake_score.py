r"""Whether the fake score learns the score of the generator's samples.

It is measured at the exact score, where an unbiased loss has no gradient on average:
$E[\nabla_{\hat x_0} | x_t] = 2 \lambda (E[x_0 | x_t] - E[x_0 | x_t]) = 0$ for every weight $\lambda(t) > 0$. So the
loop's learning rate, and how many updates it makes, do not matter. Then the score is put off, and the gradient has to
lead back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..rows import LoopRow
from .evidence import ERRORS, SIZE, Evidence, worst_part
from .levels import Levels
from .networks import BINS, Exact
from .recording import FakeScoreUpdate

PARTS = 3
"""Parts of the range of times in which samples are looked at."""

FOLLOWED = 0.02
"""Distance of two unit vectors: the direction an optimiser follows, and that of the loss it belongs to."""

BACK = 0.1
"""1 - cosine of the mean gradient with the displacement."""


def fake_score_rows(evidence: Evidence) -> Iterator[LoopRow]:
    """The law of what it is trained on, whose steps those are, bias, what its optimiser follows, the way back."""
    yield _samples(evidence)
    if evidence.steps > 1:
        yield from _steps(evidence)
    yield _bias(evidence)
    yield _followed(evidence)
    yield _back(evidence)


def _samples(evidence: Evidence) -> LoopRow:
    units, parts, likeness = [], [], []
    data = Exact(evidence.data, evidence.data)
    for law, call in evidence.fitted():
        units.append(evidence.exact[law].standard(call.x_t, call.alpha, call.sigma))
        likeness.append(data.standard(call.x_t, call.alpha, call.sigma))
        parts.append(evidence.levels.part(call.timestep, PARTS))
    part = torch.cat(parts)

    def meaning() -> str:
        before = "The fake score is not trained on noised samples of the generator as it is now"
        if worst_part(torch.cat(likeness), part).excess <= 1:
            return f"{before}, but on noised data."
        return (
            f"{before}. Usual causes: samples kept from earlier updates, noise added at another time than the network "
            "is told, noise that is not fresh, samples that are noised twice."
        )

    return worst_part(torch.cat(units), part).row(evidence.case, "fake score: samples", meaning)


def _steps(evidence: Evidence) -> Iterator[LoopRow]:
    """The share of each step among the samples that it learns, against that among those it is asked about."""
    learnt = torch.zeros(evidence.steps, dtype=torch.float64)
    for update in evidence.fake_score_updates:
        for source in update.sources:
            if source is not None:
                learnt += _shares(source.step, evidence.steps)
    queries = [query for update in evidence.generator_updates for query in update.queries]
    queried = sum((_shares(query.made.step, evidence.steps) for query in queries), torch.zeros_like(learnt))
    if learnt.sum() == 0 or queried.sum() == 0:
        return
    expected, reached = queried / queried.sum(), learnt / learnt.sum()
    error = (expected - reached).abs().sum().item() / 2
    least = min(queried.sum(), learnt.sum()).item()
    tolerance = max(0.1, ERRORS * 0.5 * math.sqrt(1 / least))
    meaning = (
        "The fake score learns samples of other steps than it is asked about, so it says the score of another law. "
        "Train it on samples of the steps that the generator's loss looks at, as often."
    )
    yield LoopRow(
        evidence.case, "fake score: steps", expected.tolist(), reached.tolist(), error, tolerance,
        "" if error <= tolerance else meaning,
    )  # fmt: skip


def _shares(step: Tensor, steps: int) -> Tensor:
    return torch.bincount(step, minlength=steps).double() / len(step)


def _bias(evidence: Evidence) -> LoopRow:
    grads, units, parts = [], [], []
    for law, call in evidence.fitted():
        assert call.grad is not None
        given = call.given
        grads.append(call.grad[given])
        units.append(evidence.exact[law].standard(call.x_t, call.alpha, call.sigma)[given])
        parts.append(evidence.levels.part(call.timestep, BINS)[given])
    grad, unit, part = torch.cat(grads), torch.cat(units), torch.cat(parts)
    worst, tolerance = math.nan, SIZE
    for number in part.unique():
        inside = part == number
        count = int(inside.sum())
        if count < max(len(part) / 50, 2):
            continue
        own, with_one = grad[inside], torch.cat([unit[inside], torch.ones(count, 1, dtype=torch.float64)], 1)
        size = own.square().sum(0).sqrt()[:, None] * math.sqrt(count)
        correlation = (own.mT @ with_one) / size
        largest = correlation.flatten()[correlation.abs().argmax()].item()
        allowed = max(SIZE, ERRORS / math.sqrt(count))
        if not abs(largest) / allowed <= abs(worst) / tolerance or math.isnan(worst):
            worst, tolerance = largest, allowed
    meaning = (
        "At the exact score of the generator's samples the fake score's loss still pulls away, so it would settle "
        "elsewhere: the number is the correlation of its error with its input, in the worst quarter of the times. "
        "Usual causes: samples of another law (see the row above), a target of another prediction type, guidance in "
        "the target, a time that belongs to other noise."
    )
    return evidence.row("fake score: bias", 0.0, worst, tolerance, meaning)


def own_gradient(update: FakeScoreUpdate, exact: Exact, levels: Levels) -> Tensor:
    """What the losses of an update's own calls give its weights and biases, flattened."""
    weight = torch.zeros(BINS, 3, 3, dtype=torch.float64)
    bias = torch.zeros(BINS, 3, dtype=torch.float64)
    for call in update.calls:
        assert call.grad is not None
        part = levels.part(call.timestep, BINS)
        unit = exact.standard(call.x_t, call.alpha, call.sigma)
        weight.index_add_(0, part, call.grad[:, :, None] * unit[:, None])
        bias.index_add_(0, part, call.grad)
    return torch.cat([weight.flatten(), bias.flatten()])


def distance(first: Tensor, second: Tensor) -> float:
    """Of the unit vectors of two: 0 for one direction, 2 for opposite ones."""
    return (first / first.norm() - second / second.norm()).norm().item()


def _followed(evidence: Evidence) -> LoopRow:
    distances = [
        distance(update.grad.double(), own_gradient(update, evidence.exact[update.law], evidence.levels))
        for update in evidence.fake_score_updates
    ]
    meaning = (
        "The fake score's optimiser follows more than the fake score's loss. Usual causes: gradients that the "
        "generator's loss left on it (no zero_grad before its own backward, no torch.no_grad where the generator's "
        "loss asks it)."
    )
    reached = sum(distances) / len(distances)
    return evidence.row("fake score: gradient followed", 0.0, reached, FOLLOWED, meaning)


def _back(evidence: Evidence) -> LoopRow:
    grads = [
        call.grad[call.given]
        for update in evidence.displaced_updates
        for call in update.calls
        if call.grad is not None
    ]  # fmt: skip
    mean = torch.cat(grads).mean(0) if grads else torch.full((3,), math.nan, dtype=torch.float64)
    cosine = torch.dot(mean, evidence.offset).item() / (mean.norm() * evidence.offset.norm()).item()
    meaning = (
        "With the fake score put off by a constant, its gradient does not lead back to the generator's score (the "
        "number is a cosine). Usual causes: a loss of the wrong sign, a target that follows the network's own output."
    )
    return evidence.row("fake score: way back", 1.0, cosine, BACK, meaning)


def look_rows(evidence: Evidence, harmless: bool) -> Iterator[LoopRow]:
    """Where the generator's loss asks the fake score about its samples, and with which prompt.

    Args:
        evidence: of a case.
        harmless: whether the gradient on samples is right, whatever the fake score was asked besides.
    """
    noises, parts, queried, given = [], [], 0, 0.0
    for update in evidence.generator_updates:
        for query in update.queries:
            read = _columns(query.made.x_t)
            for call in query.seen:
                queried, given = queried + len(call.x_t), given + call.given.double().sum().item()
                times = len(call.x_t) // len(query.made.x_t)
                x0 = query.made.x0.repeat(times, 1)
                noise = (call.x_t - call.alpha[:, None] * x0) / call.sigma[:, None]
                noises.append(torch.cat([noise, read.repeat(times, 1)], 1))
                parts.append(evidence.levels.part(call.timestep, PARTS))
    meaning = (
        "The generator's loss does not look at x_t = alpha x_0 + sigma eps of its own sample x_0, with fresh noise, "
        "at the time that the fake score is told (the numbers are the noise's mean and variance). Usual causes: "
        "another time for the noise than for the network, rows out of order, the generator's own noise used again."
    )
    moments = worst_part(torch.cat(noises), torch.cat(parts), beside=3)
    yield moments.row(evidence.case, "noised samples", lambda: meaning, columns=3)
    yield evidence.row(
        "fake score: prompt",
        1.0,
        given / queried,
        1.0 if harmless else 0.0,
        "The generator's loss asks the fake score without the prompt as well: guidance on the fake score. Guidance "
        "belongs to the reference alone; the fake score has to say the score of the samples as they are.",
    )


def _columns(x: Tensor) -> Tensor:
    """Each column with mean 0 and variance 1."""
    return (x - x.mean(0)) / x.std(0).clamp(min=1e-6) if len(x) > 1 else torch.zeros_like(x)
