"""`dipp verify --loop`: runs a loop on each of its cases, and holds what was seen against closed forms."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from ...errors import RequestError, RunError
from ...objective.gaussians import QuadraticReward
from ...utils.messages import unknown_name
from ...utils.reproducibility import random_states_kept, seed_everything
from ..cases import CASES
from ..rows import LoopRow
from .adapter import LOOP_CASES, Adapter, call, find_adapter, make_loop
from .evidence import Evidence
from .fake_score import fake_score_rows, look_rows
from .gradients import gradient_rows
from .inputs import input_rows
from .recording import Call, Recorder
from .world import LoopWorld, Stage

ROWS = 16_000
"""Samples of each step that are wanted, and three times as many of all, where the loop's batches give them in
`MOST_CALLS`."""

UPDATES = 4
"""Generator updates a step of the generator, at least."""

LEAST_UPDATES = 16
"""Generator updates in all, at least; standard errors of gradients are estimated from them."""

MOST_CALLS = 400
"""Calls of `step()`, at most."""

FEW_CALLS = 40
"""Calls of `step()` after which an update that has not come will not."""

DISPLACED_CALLS = 6
"""Calls of `step()` with the fake score put off."""

SAMPLES = 16_000
"""Samples that the loop's own sampler is asked for."""

OFFSET = (0.4, -0.3, 0.5)


def run_loop(
    loop: str | Callable[[Any], Any], cases: Sequence[str] | None = None, seed: int = 0, rows: int = ROWS
) -> list[LoopRow]:
    """Run somebody's training loop on Gaussian worlds, and hold what it does against closed forms.

    Args:
        loop: the adapter, or `file.py:NAME` or `module:NAME`; see docs/guide/verify-a-loop.md.
        cases: out of `LOOP_CASES`; those that the adapter says it can do, unless given.
        seed: of every draw.
        rows: samples of each of the generator's steps that are wanted; fewer are quicker, and let more pass.

    Returns:
        The rows of all cases.

    Raises:
        RequestError: the adapter cannot be used, or a case is unknown to it.
        RunError: the loop failed, or did not use the world's networks; the message says what to do.
    """
    adapter = find_adapter(loop)
    for case in cases or ():
        if case not in LOOP_CASES:
            raise RequestError(unknown_name("case of a loop", case, LOOP_CASES))
        if case not in adapter.cases:
            raise RequestError(
                f"The loop '{adapter.name}' does not support the case '{case}': its `cases` are "
                f"{', '.join(adapter.cases)}."
            )
    table: list[LoopRow] = []
    for case in cases or adapter.cases:
        with random_states_kept(torch.device("cpu")):
            seed_everything(seed)
            evidence = gather(adapter, case, seed, rows)
        gradients = list(gradient_rows(evidence, adapter))
        table += [*input_rows(evidence), *fake_score_rows(evidence)]
        table += [*look_rows(evidence, harmless=gradients[0].passed), *gradients]
    return table


def gather(adapter: Adapter, name: str, seed: int, rows: int) -> Evidence:
    """Run a loop on a case until enough was seen.

    Raises:
        RunError: it failed, or did not use the world's networks.
    """
    case, recorder = CASES[name], Recorder()
    stage = Stage(adapter, recorder)
    world = LoopWorld(case, adapter, stage)
    chance = random.Random(seed)

    def train(step: Callable[[], Any]) -> None:
        law = chance.randrange(2)
        stage.set_law(law)
        recorder.start_step(law)
        call(adapter, "its step", step)

    with recorder.watching():
        step, sample = make_loop(adapter, world)
        recorder.generator_updates, recorder.fake_score_updates = [], []
        _until_enough(adapter, recorder, partial(train, step), len(world.timesteps), rows)
        generator_updates, fake_score_updates = recorder.generator_updates, recorder.fake_score_updates
        recorder.generator_updates, recorder.fake_score_updates = [], []
        stage.fake_score.offset = torch.tensor(OFFSET, dtype=torch.float64)
        for _ in range(DISPLACED_CALLS):
            train(step)
        stage.fake_score.offset = torch.zeros(3, dtype=torch.float64)
        stage.set_law(0)
        sampling = None if sample is None else _sampled(adapter, recorder, sample)
    reference = stage.reference
    slope = case.reward_scale * case.reward.slope if isinstance(case.reward, QuadraticReward) else None
    return Evidence(
        name, stage.levels, stage.chain, world.timesteps, stage.laws,
        reference.given, reference.guided(case.guidance), reference.empty,
        generator_updates, fake_score_updates, recorder.fake_score_updates,
        torch.tensor(OFFSET, dtype=torch.float64), sampling, slope, case.guidance,
    )  # fmt: skip


def _until_enough(
    adapter: Adapter, recorder: Recorder, train: Callable[[], None], steps: int, rows: int
) -> None:  # fmt: skip
    least_updates = max(UPDATES * steps, LEAST_UPDATES)
    for count in range(1, MOST_CALLS + 1):
        train()
        if count in (FEW_CALLS, MOST_CALLS):
            _check(adapter, recorder, count)
        updates = recorder.generator_updates
        seen = torch.zeros(steps)
        for update in updates:
            for own in update.calls:
                seen += torch.bincount(own.step, minlength=steps)
        # A step that never comes is not waited for longer than it takes to be sure of that.
        waited = len(updates) >= 4 * least_updates
        least = seen[seen > 0].min() if waited and (seen > 0).any() else seen.min()
        enough = least >= rows and seen.sum() >= 3 * rows
        if recorder.fake_score_updates and len(updates) >= least_updates and enough:
            break
    _check(adapter, recorder, count)


def _check(adapter: Adapter, recorder: Recorder, count: int) -> None:
    """Refuse a loop whose updates are not to be seen.

    Raises:
        RunError: the message says what to change in the adapter.
    """
    start = f"The loop '{adapter.name}'"
    calls = f"{count} call{'s' * (count > 1)} of step()"
    for role in ("generator", "fake_score", "reference"):
        if role not in recorder.called:
            raise RunError(f"{start} never called world.{role} in {calls}. Put it where your own network stands.")
    for role, updates in (
        ("generator", recorder.generator_updates), ("fake_score", recorder.fake_score_updates)
    ):  # fmt: skip
        if not updates:
            raise RunError(
                f"In {calls} of the loop '{adapter.name}' no torch optimiser made a step on world.{role} with a "
                f"gradient. Give an optimiser world.{role}.parameters(), and have step() call backward() and its "
                "step()."
            )
    if not all(update.calls for update in recorder.fake_score_updates):
        raise RunError(
            f"{start} steps the fake score's optimiser without a loss of its own: no gradient came back to a call of "
            "world.fake_score on samples without a graph. Train it on detached samples before its optimiser steps."
        )
    if not all(update.calls for update in recorder.generator_updates):
        raise RunError(
            f"{start} steps the generator's optimiser without a gradient on what world.generator returned in that "
            "call of step(). Make whole updates in one step()."
        )
    if not all(update.queries for update in recorder.generator_updates):
        raise RunError(
            f"{start} made a generator update without asking world.fake_score about the samples it had just made: its "
            "loss has to call it, with as many rows, between the generator's call with a graph and backward(). "
            "(Recomputed activations hide that: switch checkpointing off.)"
        )


def _sampled(adapter: Adapter, recorder: Recorder, sample: Callable[[int], Any]) -> list[Call]:
    """The generator's calls in the loop's own sampler.

    Raises:
        RunError: it failed, or never called the generator.
    """
    recorder.sampling = []
    with torch.no_grad():
        call(adapter, "its sample", sample, SAMPLES)
    if not recorder.sampling:
        raise RunError(f"The loop '{adapter.name}' has a sample() that never called world.generator.")
    return recorder.sampling
