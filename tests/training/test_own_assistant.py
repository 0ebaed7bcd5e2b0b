"""An assistant of somebody's own: it is given the whole batch, however many passes and processes make it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.distributed import Processes
from dipp_toolkit.objective.evaluate import WeightedTerm
from dipp_toolkit.objective.terms.integral_kl import IntegralKL
from dipp_toolkit.protocols import Assistant
from dipp_toolkit.training.engine import Engine
from dipp_toolkit.verify.cases import make_reference
from dipp_toolkit.verify.world import AffineGenerator, AffineMap

BATCH = 12


@dataclass
class Remembering:
    """An assistant that knows the mean of the samples it has seen, and what it was given."""

    shift: Tensor = field(default_factory=lambda: torch.zeros(1, 3, 1, 1, dtype=torch.float64))
    batches: list[tuple[Tensor, Condition, Tensor]] = field(default_factory=list)

    def predict_x0(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return x_t + self.shift

    def update(self, x0: Tensor, condition: Condition, random: torch.Generator) -> float:
        self.batches.append((x0, condition, torch.rand(2, generator=random)))
        self.shift = self.shift / 2 + x0.mean(0, keepdim=True) / 2
        return float(x0.square().mean())

    def state_dict(self) -> dict[str, Any]:
        return {"shift": self.shift}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shift = state["shift"]


class Exchange:
    """What processes of one interpreter, a thread each, lay side by side."""

    def __init__(self, count: int) -> None:
        self.places: list[Any] = [None] * count
        self.barrier = Barrier(count)

    def all(self, rank: int, thing: Any) -> list[Any]:
        self.places[rank] = thing
        self.barrier.wait(20)
        everything = list(self.places)
        self.barrier.wait(20)
        return everything


@dataclass(frozen=True)
class InThreads(Processes):
    """Processes that are threads."""

    exchange: Exchange = field(default_factory=lambda: Exchange(1))

    def tell(self, words: Any) -> list[Any]:
        return self.exchange.all(self.rank, words)

    def mean(self, tensor: Tensor) -> Tensor:
        return torch.stack(self.exchange.all(self.rank, tensor)).mean(0)

    def gather(self, tensor: Tensor) -> Tensor:
        return torch.cat(self.exchange.all(self.rank, tensor))


def engine_of(assistant: Assistant, accumulation: int, processes: Processes) -> Engine:
    reference = make_reference()
    start = torch.Generator().manual_seed(0)  # its own, for processes are threads here
    weight, bias = (torch.randn(shape, generator=start, dtype=torch.float64) for shape in ((3, 3), (3,)))
    generator = AffineGenerator(AffineMap(weight, bias))
    optimizer = torch.optim.SGD(generator.network.parameters(), lr=0.01)
    terms = [WeightedTerm("integral_kl", IntegralKL(reference, assistant))]
    random = torch.Generator().manual_seed(3)
    return Engine(generator, optimizer, assistant, terms, random, accumulation=accumulation, processes=processes)


def rows_of(rank: int, count: int, accumulation: int) -> list[int]:
    """A process's rows of the batch, as a training loop deals them."""
    size = BATCH // count // accumulation
    starts = [(k * count + rank) * size for k in range(accumulation)]
    return [row for start in starts for row in range(start, start + size)]


def updated(accumulation: int, count: int = 1) -> list[tuple[Remembering, list[float]]]:
    """Each process's assistant after two updates, and its losses."""
    whole = make_reference().encode([f"prompt {row}" if row % 2 else "" for row in range(BATCH)])
    exchange = Exchange(count)
    done: list[Any] = [None] * count

    def work(rank: int) -> None:
        assistant = Remembering()
        processes = InThreads(rank, count, exchange) if count > 1 else Processes()
        engine = engine_of(assistant, accumulation, processes)
        condition = whole[rows_of(rank, count, accumulation)]
        done[rank] = (assistant, [engine.update_assistant(condition) for _ in range(2)])

    together([lambda rank=rank: work(rank) for rank in range(count)])
    return done


def together(works: Sequence[Callable[[], None]]) -> None:
    threads = [Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


@pytest.mark.parametrize(("accumulation", "count"), [(3, 1), (1, 2), (2, 2), (2, 3)])
def test_it_is_given_the_batch_that_one_pass_would_have(accumulation: int, count: int) -> None:
    """Samples, prompts and random numbers, but for the rounding of smaller matrices; the same bits in each process."""
    ((alone, losses),) = updated(1)
    shared = updated(accumulation, count)
    for assistant, its_losses in shared:
        assert its_losses == shared[0][1] == pytest.approx(losses, rel=1e-12)
        assert torch.equal(assistant.shift, shared[0][0].shift)
        for (x0, condition, drawn), (x0_alone, condition_alone, drawn_alone) in zip(
            assistant.batches, alone.batches, strict=True
        ):
            torch.testing.assert_close(x0, x0_alone)
            assert torch.equal(drawn, drawn_alone)
            assert condition.prompts == condition_alone.prompts
            assert torch.equal(condition.tensors["given"], condition_alone.tensors["given"])
    assert len(alone.batches[0][0].unique(dim=0)) == BATCH


def test_a_step_with_accumulation_trains_generator_and_own_assistant() -> None:
    assistant = Remembering()
    engine = engine_of(assistant, 3, Processes())
    condition = make_reference().encode(["a"] * BATCH)
    before = engine.generator.network.bias.detach().clone()
    result, loss = engine.step([condition, condition])
    assert not result.skipped and loss > 0
    assert len(assistant.batches) == 1
    assert not torch.equal(before, engine.generator.network.bias)
