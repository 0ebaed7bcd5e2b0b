"""An update's batch in micro-batches, accumulated by each of several processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..diffusion.condition import Condition
from ..distributed import Processes
from ..distributed.shared_draws import SharedDraws


@dataclass(frozen=True)
class MicroBatch:
    """A part of an update's batch that goes through the networks at once.

    Attributes:
        condition: one row a sample.
        random: its random source.
        share: of this process's samples that it has.
        last: whether no other follows.
    """

    condition: Condition
    random: torch.Generator
    share: float = 1.0
    last: bool = True


def micro_batches(
    condition: Condition, random: torch.Generator, accumulation: int, processes: Processes
) -> Iterator[MicroBatch]:
    """The micro-batches of one update in this process.

    Micro-batch k of process r has the rows $(k W + r) B$ to $(k W + r + 1) B$ of the whole batch, for W processes and
    micro-batches of B samples. Each starts with `random` in the state it had before the first, and leaves it in the
    state it has after the last.

    Args:
        condition: this process's rows, those of one micro-batch after the other.
        random: the run's random source, in the same state in every process.
        accumulation: how many micro-batches.
        processes: those that share the batch.
    """
    if accumulation == 1 and processes.alone:
        yield MicroBatch(condition, random)
        return
    size = len(condition) // accumulation
    state = random.get_state()
    for k in range(accumulation):
        random.set_state(state)
        start = (k * processes.count + processes.rank) * size
        draws = SharedDraws(random, start, size, size * accumulation * processes.count)
        rows = condition[k * size : (k + 1) * size]
        yield MicroBatch(rows, draws, 1 / accumulation, k + 1 == accumulation)


def gathered(condition: Condition, processes: Processes) -> Condition:
    """A micro-batch's rows in all processes, in the order of the whole batch."""
    if processes.alone:
        return condition
    prompts = tuple(prompt for rows in processes.tell(list(condition.prompts)) for prompt in rows)
    tensors = {name: processes.gather(tensor) for name, tensor in condition.tensors.items()}
    return Condition(prompts, tensors, condition.size)
