"""A batch made in several passes, by several processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..diffusion.condition import Condition
from ..distributed import Processes
from ..distributed.shared_draws import SharedDraws


@dataclass(frozen=True)
class Pass:
    """A part of an update's batch that goes through the networks at once.

    Attributes:
        condition: one row a sample.
        random: the pass's random source.
        share: of this process's samples that the pass has.
        last: whether no other follows.
    """

    condition: Condition
    random: torch.Generator
    share: float = 1.0
    last: bool = True


def passes_of(condition: Condition, random: torch.Generator, accumulation: int, processes: Processes) -> Iterator[Pass]:
    """The passes of one update in this process.

    Pass k of process r has the rows $(k W + r) B$ to $(k W + r + 1) B$ of the whole batch, for W processes and passes
    of B samples. Every pass begins with `random` in the state it had before the first, and leaves it in that it has
    after the last.

    Args:
        condition: this process's rows, those of one pass after the other.
        random: the run's random source, in the same state in every process.
        accumulation: passes.
        processes: those that share the batch.
    """
    if accumulation == 1 and processes.alone:
        yield Pass(condition, random)
        return
    size = len(condition) // accumulation
    state = random.get_state()
    for k in range(accumulation):
        random.set_state(state)
        start = (k * processes.count + processes.rank) * size
        draws = SharedDraws(random, start, size, size * accumulation * processes.count)
        rows = condition[k * size : (k + 1) * size]
        yield Pass(rows, draws, 1 / accumulation, k + 1 == accumulation)


def gathered(condition: Condition, processes: Processes) -> Condition:
    """A pass's rows in all processes, in the order of the whole batch."""
    if processes.alone:
        return condition
    prompts = tuple(prompt for rows in processes.tell(list(condition.prompts)) for prompt in rows)
    return Condition(prompts, {name: processes.gather(tensor) for name, tensor in condition.tensors.items()})
