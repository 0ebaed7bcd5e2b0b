"""The processes of a launcher and what they exchange; a single process where there was no launcher."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import BadNumbers, DippError, Interrupted, RunError

Item = TypeVar("Item")

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: the first one may be writing a report."""


def launched_count() -> int:
    """How many processes a launcher started, by its environment variables; 1 where there was none."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launcher_settings() -> dict[str, Any]:
    """Settings that `accelerate launch` gives by its configuration file or its flags: `precision` and `accumulation`.

    `mixed_precision: no` is accelerate's own default and chooses nothing; fp8 is not one of our precisions.
    """
    settings: dict[str, Any] = {}
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision in ("bf16", "fp16"):
        settings["precision"] = precision
    micro_batches = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if micro_batches.isdigit() and int(micro_batches) > 1:
        settings["accumulation"] = int(micro_batches)
    return settings


@cache
def _host_group() -> Any:
    """A group for messages through the hosts' memory, so that no accelerator has to be waited for."""
    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)


@dataclass(frozen=True)
class Processes:
    """This process among those that work on one thing.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def launched(cls, device: torch.device) -> Processes:
        """Join the others that a launcher started (torchrun's environment variables), or be alone.

        Args:
            device: where this process computes; processes on CPUs talk by gloo, those on GPUs by NCCL.
        """
        if launched_count() == 1:
            return cls()
        from accelerate import PartialState

        state = PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
        _host_group()
        return cls(state.process_index, state.num_processes)

    @property
    def main(self) -> bool:
        """Whether this is the one that writes the results."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.count == 1

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This process's part: every `count`-th item."""
        return list(items[self.rank :: self.count])

    def wait(self) -> None:
        """Until all processes are here."""
        if not self.alone:
            torch.distributed.barrier(group=_host_group())

    def tell(self, message: Any) -> list[Any]:
        """Send a message to all; the messages of all processes, by rank.

        Args:
            message: any JSON value. Nothing is pickled.
        """
        if self.alone:
            return [message]
        group = _host_group()
        text = torch.frombuffer(bytearray(json.dumps(message).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        torch.distributed.all_gather(lengths, torch.tensor([len(text)]), group=group)
        longest = max(int(length) for length in lengths)
        texts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.count)]
        padded = torch.nn.functional.pad(text, (0, longest - len(text)))
        torch.distributed.all_gather(texts, padded, group=group)
        return [json.loads(bytes(text[: int(length)].tolist())) for text, length in zip(texts, lengths, strict=True)]

    def first_says(self, message: Item) -> Item:
        """The message of the first process, whatever this one's is."""
        first: Item = self.tell(message if self.main else None)[0]
        return first

    def agree(self, failure: DippError | Interrupted | None) -> None:
        """Go on together or not at all: where any process failed, all raise.

        Raises:
            DippError: this process's own failure.
            BadNumbers: another one met numbers that are not finite.
            RunError: another one failed.
        """
        if self.alone:
            if failure is not None:
                raise failure
            return
        reports = self.tell(None if failure is None else [isinstance(failure, BadNumbers), str(failure)])
        failed = [(rank, *report) for rank, report in enumerate(reports) if report is not None]
        if failure is not None:
            raise failure
        if failed:
            rank, bad, text = failed[0]
            raise (BadNumbers if bad else RunError)(f"Process {rank} of {self.count} failed: {text}")

    def together(self, work: Callable[[], Item]) -> Item:
        """What this process's work gives, once all have done theirs; where any failed, all raise, as `agree` says."""
        failure: DippError | Interrupted | None = None
        try:
            done = work()
        except (DippError, Interrupted) as error:  # the others are told of a signal too
            failure = error
        self.agree(failure)
        return done

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over the processes of a tensor that each has."""
        if self.alone:
            return tensor
        summed = tensor.detach().clone()
        torch.distributed.all_reduce(summed)
        return summed / self.count

    def gather(self, tensor: Tensor) -> Tensor:
        """The rows of all processes, `(count * batch, ...)`, in the order of the whole batch."""
        if self.alone:
            return tensor
        parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(self.count)]
        torch.distributed.all_gather(parts, tensor.detach().contiguous())
        return torch.cat(parts)
