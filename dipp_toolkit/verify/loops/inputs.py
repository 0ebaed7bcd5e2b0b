"""Whether the generator reads in training what it reads in sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ...objective.gaussians import Gaussian
from ..rows import LoopRow
from .evidence import Evidence, Moments, standardised
from .recording import Call

TIMESTEP = 0.5
"""A generator's time may be off by this much, as where it is rounded."""


def input_rows(evidence: Evidence) -> Iterator[LoopRow]:
    """The times at which it is read, then the law of each step's inputs; the same of the loop's own sampler, if any."""
    trained = [(update.law, call) for update in evidence.generator_updates for call in update.calls]
    yield _times(evidence, "times in training", [call for _, call in trained])
    for step in range(evidence.steps):
        yield _inputs(evidence, "inputs of step", trained, step, _cause)
    if evidence.sampling is None:
        return
    sampled = [(0, call) for call in evidence.sampling]
    yield _times(evidence, "times in sampling", evidence.sampling)
    for step in range(evidence.steps):
        yield _inputs(evidence, "sampling, step", sampled, step, _other_sampler)


def _times(evidence: Evidence, quantity: str, calls: list[Call]) -> LoopRow:
    times = torch.cat([call.timestep for call in calls])
    steps = torch.cat([call.step for call in calls])
    off = (times - evidence.timesteps[steps]).abs()
    reached = [times[steps == step].mean().item() for step in range(evidence.steps)]
    meaning = (
        f"The generator is read at timestep {times[off.argmax()].item():g}, and the adapter says that its sampler "
        f"reads it at {', '.join(f'{time:g}' for time in evidence.timesteps.tolist())}. Usual causes: a timestep "
        "shift or a spacing on one side only, an index that is off by one, times drawn from the whole schedule."
    )
    return LoopRow(
        evidence.case, quantity, evidence.timesteps.tolist(), reached, off.max().item(), TIMESTEP,
        "" if off.max() <= TIMESTEP else meaning,
    )  # fmt: skip


Cause = Callable[[Evidence, list[tuple[int, Tensor]], int], str]


def _inputs(evidence: Evidence, quantity: str, calls: list[tuple[int, Call]], step: int, cause: Cause) -> LoopRow:
    quantity = f"{quantity} {step + 1}"
    rows = [(law, call.x_t[call.step == step]) for law, call in calls]
    count = sum(len(x) for _, x in rows)
    if count < 2:
        meaning = f"Step {step + 1} of {evidence.steps} is never called there."
        return LoopRow(evidence.case, quantity, [[0.0] * 3, [1.0] * 3], [], math.inf, 0.05, meaning)
    units = torch.cat([standardised(evidence.reads[law][step], x) for law, x in rows])
    return Moments.of(units).row(evidence.case, quantity, lambda: cause(evidence, rows, step))


def _cause(evidence: Evidence, rows: list[tuple[int, Tensor]], step: int) -> str:
    """What they look like instead."""
    if step == 0:
        return (
            "The first step does not read pure noise N(0, I), which is what sampling starts from. Usual causes: "
            "noised data as its input, noise that was scaled."
        )
    alpha, sigma = evidence.chain.alpha[step], evidence.chain.sigma[step]
    identity = torch.eye(3, dtype=torch.float64)
    x = torch.cat([read for _, read in rows])
    data = Gaussian(
        alpha * evidence.data.mean, alpha.square() * evidence.data.covariance + sigma.square() * identity
    )  # fmt: skip
    likeness = {
        "noised data: the generator's earlier steps are not simulated (DMD2's backward simulation is missing)": data,
        "pure noise: the earlier steps are left out": Gaussian(torch.zeros(3, dtype=torch.float64), identity),
    }
    before = (
        f"The inputs of step {step + 1} in training do not have the law that this generator's step {step} leads to in "
        "sampling"
    )
    for name, law in likeness.items():
        if Moments.of(standardised(law, x)).excess <= 1:
            return f"{before}; they have that of {name}."
    return (
        f"{before}. Usual causes: data, or samples of an earlier generator, in the place of the generator's own; "
        "another noise level than the sampler's; noise that is not fresh."
    )


def _other_sampler(evidence: Evidence, rows: list[tuple[int, Tensor]], step: int) -> str:
    return (
        f"In sample(), step {step + 1} does not read what the sampler that the adapter states leads to: "
        f"{evidence.chain.sampler}, from pure noise, at its timesteps. Say what your sampler does (timesteps, "
        "sampler); the rows of training are held against that."
    )
