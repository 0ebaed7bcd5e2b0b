"""Copies of a state in the host's memory. A GPU makes them beside what it computes, and the host does not wait.

A plain copy to the host waits until the device has done all that it was given, tensor after tensor. Here the copies
stand on a stream of their own, which begins once the training's stream has come to where the state is whole; the next
change of the state waits for them on the device, and the thread that writes waits for them on the host.

They are ours because `torch.distributed.checkpoint.async_save` pickles what stands around the tensors and has files of
its own, and its stagers have the host wait before the next change; `accelerate` writes in the calling thread.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

CHUNK = 2**28
"""Bytes of pinned memory that are taken at once. torch rounds each piece up to a power of two, so that tensors by
themselves would take up to twice their size."""
ALIGNED = 64
"""Bytes that a copy's place is a multiple of."""


class HostCopies:
    """Copies that are there as soon as they are asked for: those of a CPU's tensors, and of devices without streams."""

    def begin(self) -> None:
        """The state is whole, and copies of it are asked for next."""

    def __call__(self, tensor: Tensor) -> Tensor:
        """A contiguous copy."""
        copy: Tensor = tensor.detach().to("cpu", copy=True).contiguous()
        return copy

    def end(self) -> None:
        """All have been asked for."""

    def before_change(self) -> None:
        """Have the device wait until the copies are made; what it is given from now on may change the state."""

    def wait(self) -> None:
        """Until the copies are there; may be called in another thread."""


@runtime_checkable
class SideStream(Protocol):
    """A queue of copies beside the device's own."""

    def begin(self) -> None:
        """Later copies come after what the device has been given up to now."""

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Queue a copy."""

    def end(self) -> None:
        """The copies up to here are those that are waited for."""

    def before_change(self) -> None:
        """What the device is given from now on comes after the copies."""

    def wait(self) -> None:
        """Until the copies are made."""


class CudaStream:
    """A stream of a GPU.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)
        self.copied = torch.cuda.Event(blocking=True)  # the thread that waits sleeps

    def begin(self) -> None:
        self.stream.wait_stream(torch.cuda.current_stream(self.device))

    def copy(self, target: Tensor, source: Tensor) -> None:
        with torch.cuda.stream(self.stream):
            target.copy_(source, non_blocking=True)

    def end(self) -> None:
        self.copied.record(self.stream)

    def before_change(self) -> None:
        torch.cuda.current_stream(self.device).wait_event(self.copied)

    def wait(self) -> None:
        self.copied.synchronize()


class StreamCopies(HostCopies):
    """Copies on a stream, in memory that is kept for the next ones: those before are gone then.

    Args:
        stream: makes them.
        pin: whether to pin the memory. Where the system refuses that, it stays as it is, and the host waits.
    """

    def __init__(self, stream: SideStream, pin: bool = True) -> None:
        self.stream, self.pin = stream, pin
        self.chunks: list[Tensor] = []
        self.place = 0, 0
        """The chunk that is being filled, and how far it is."""
        self.sources: list[Tensor] = []
        """What is being copied is not freed before it is."""

    def begin(self) -> None:
        self.place, self.sources = (0, 0), []
        self.stream.begin()

    def __call__(self, tensor: Tensor) -> Tensor:
        return super().__call__(tensor) if tensor.device.type == "cpu" else self._queued(tensor)

    def _queued(self, tensor: Tensor) -> Tensor:
        source = tensor.detach()
        target = self._room(source)
        self.sources.append(source)
        self.stream.copy(target, source)
        return target

    def end(self) -> None:
        self.stream.end()

    def before_change(self) -> None:
        self.stream.before_change()

    def wait(self) -> None:
        self.stream.wait()
        self.sources = []

    def _room(self, like: Tensor) -> Tensor:
        """A contiguous place for a tensor."""
        number, start = self.place
        size = like.numel() * like.element_size()
        while number < len(self.chunks) and start + size > len(self.chunks[number]):
            number, start = number + 1, 0
        if number == len(self.chunks):
            self.chunks.append(self._chunk(max(size, CHUNK)))
        self.place = number, start + math.ceil(size / ALIGNED) * ALIGNED
        return self.chunks[number][start : start + size].view(like.dtype).view(like.shape)

    def _chunk(self, size: int) -> Tensor:
        try:
            return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=self.pin)
        except RuntimeError:
            if not self.pin:
                raise
            self.pin = False  # for good: what can be pinned is used up
            return self._chunk(size)


def host_copies(device: torch.device) -> HostCopies:
    """What copies the state of a run on a device."""
    return StreamCopies(CudaStream(device)) if device.type == "cuda" else HostCopies()
