"""Gradients averaged over processes while the backward pass still runs.

`DistributedDataParallel` does this for a module that is called once an update. Here an update calls a network several
times (micro-batches, several steps, recomputed passes) and by other methods than `forward`, and only its last backward
pass may send; so the hooks and buckets are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .group import Processes
from .sharded_state import is_sharded

BUCKET_BYTES = 25 * 2**20
"""Size of a bucket: large enough for the network, small enough to be sent early."""


@dataclass
class Bucket:
    """Parameters whose gradients travel together.

    Attributes:
        parameters: of one dtype.
        waiting: how many of their gradients are not there yet.
        flat: the gradients under way, one after the other.
        work: of the collective.
    """

    parameters: list[nn.Parameter]
    waiting: int = 0
    flat: Tensor | None = None
    work: Any = None


@dataclass
class GradientAverage:
    """Averages the gradients of a network's parameters over the processes.

    Hooks on the parameters notice when a gradient is complete; a full bucket is sent at once, in the same order in
    every process. It works on any module and any number of backward passes: only the one after `arm` sends.

    Attributes:
        parameters: those that are trained. Sharded ones are averaged by what shards them, and are left alone.
        processes: those that average.
    """

    parameters: Sequence[nn.Parameter]
    processes: Processes = field(default_factory=Processes)
    _buckets: list[Bucket] = field(default_factory=list, repr=False)
    _armed: bool = field(default=False, repr=False)
    _next: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if self.processes.alone:
            return
        plain = [parameter for parameter in self.parameters if not is_sharded(parameter)]
        self._buckets = _in_buckets(plain)
        for bucket in self._buckets:
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(self._hook(bucket))

    def _hook(self, bucket: Bucket) -> Any:
        def hook(parameter: Tensor) -> None:
            if not self._armed:
                return
            bucket.waiting -= 1
            if bucket.waiting < 0:
                raise RuntimeError("A gradient arrived twice in one backward pass; it was averaged without the second.")
            self._send_ready()

        return hook

    def arm(self) -> None:
        """The next backward pass is the last before `finish`."""
        self._armed, self._next = True, 0
        for bucket in self._buckets:
            bucket.waiting, bucket.flat, bucket.work = len(bucket.parameters), None, None

    def _send_ready(self) -> None:
        while self._next < len(self._buckets) and self._buckets[self._next].waiting == 0:
            self._send(self._buckets[self._next])
            self._next += 1

    def _send(self, bucket: Bucket) -> None:
        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in bucket.parameters
        ]
        bucket.flat = torch.cat([gradient.flatten() for gradient in gradients])
        bucket.work = torch.distributed.all_reduce(bucket.flat, async_op=True)

    def finish(self) -> None:
        """Wait until every parameter holds the averaged gradient."""
        for bucket in self._buckets[self._next :]:  # some of their parameters had no part in the pass
            self._send(bucket)
        self._armed, self._next = False, len(self._buckets)
        for bucket in self._buckets:
            assert bucket.flat is not None
            bucket.work.wait()
            flat = bucket.flat.div_(self.processes.count)
            parts = flat.split([parameter.numel() for parameter in bucket.parameters])
            for parameter, part in zip(bucket.parameters, parts, strict=True):
                parameter.grad = part.view_as(parameter)
            bucket.flat = bucket.work = None


def _in_buckets(parameters: Sequence[nn.Parameter]) -> list[Bucket]:
    """Last parameters first, as their gradients come."""
    buckets: list[Bucket] = []
    size = 0
    for parameter in reversed(parameters):
        if not buckets or size >= BUCKET_BYTES or buckets[-1].parameters[0].dtype != parameter.dtype:
            buckets.append(Bucket([]))
            size = 0
        buckets[-1].parameters.append(parameter)
        size += parameter.nbytes
    return buckets
