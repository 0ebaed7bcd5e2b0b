"""What making images costs: `latency`, `memory` and `parameters`."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter

import torch
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.protocols import ImageSource


def call_with(source: ImageSource, prompts: Sequence[str], count: int, call: int) -> Tensor:
    """Make `count` images: the next prompts in turn, each with a seed of its own.

    Raises:
        RequestError: there are no prompts.
    """
    if not prompts:
        raise RequestError("Measuring costs needs at least one prompt; got none.")
    first = call * count
    chosen = [prompts[(first + index) % len(prompts)] for index in range(count)]
    return source.images(chosen, list(range(first, first + count)))


def wait_for(device: torch.device) -> None:
    """Return when the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


LEAST_REPEATS = 3


class Latency:
    """Wall-clock seconds from prompts to pixels on the CPU, over the number of images: encoding, network and decoder.

    Each size is warmed up, then timed again and again; the device is waited for before and after. Prompts that the
    source has encoded before are not encoded again.

    Args:
        batch: images of the larger size.
        repeats: timings of each size.
        warmup: untimed calls of each size before.
        seconds: a size ends early after so long, but not before three timings.

    Raises:
        RequestError: an option is out of range.
    """

    def __init__(self, batch: int = 8, repeats: int = 10, warmup: int = 2, seconds: float = 60.0):
        if batch < 2 or repeats < 1 or warmup < 0 or seconds < 0:
            raise RequestError(
                "The metric 'latency' needs batch >= 2, repeats >= 1, warmup >= 0 and seconds >= 0; got "
                f"batch={batch}, repeats={repeats}, warmup={warmup}, seconds={seconds}."
            )
        self.batch, self.repeats, self.warmup, self.seconds = batch, repeats, warmup, seconds

    @property
    def better(self) -> Mapping[str, str]:
        return {"latency": "lower", f"latency-batch-{self.batch}": "lower"}

    def costs(self, source: ImageSource, prompts: Sequence[str]) -> dict[str, list[float]]:
        """`latency` and `latency-batch-N`: seconds an image, one for each timing; take the median.

        Raises:
            RequestError: there are no prompts.
        """
        return {
            "latency": self._timed(source, prompts, 1),
            f"latency-batch-{self.batch}": self._timed(source, prompts, self.batch),
        }

    def _timed(self, source: ImageSource, prompts: Sequence[str], count: int) -> list[float]:
        for call in range(self.warmup):
            call_with(source, prompts, count, call)
        start, timings = perf_counter(), list[float]()
        for call in range(self.repeats):
            wait_for(source.device)
            started = perf_counter()
            call_with(source, prompts, count, call)
            wait_for(source.device)
            timings.append((perf_counter() - started) / count)
            if len(timings) >= LEAST_REPEATS and perf_counter() - start > self.seconds:
                break
        return timings


MIB = 2**20
INTERVAL = 0.001
"""Seconds between two looks at the resident memory."""


class Memory:
    """Peak memory in MiB while a batch of images is made.

    On CUDA it is the peak of what torch's allocator holds: weights, activations, and whatever else this process keeps
    on the device. On a CPU it is by how much the process's resident memory grows, looked at every
    millisecond: without the weights, and without what fits into memory that the process holds already. So the two are
    not comparable, and the second is an estimate from below.

    Args:
        batch: images of the batch.
        repeats: measurements.

    Raises:
        RequestError: an option is below 1.
    """

    better: Mapping[str, str] = {"memory": "lower"}

    def __init__(self, batch: int = 8, repeats: int = 3):
        if batch < 1 or repeats < 1:
            raise RequestError(
                f"The metric 'memory' needs batch >= 1 and repeats >= 1; got batch={batch}, repeats={repeats}."
            )
        self.batch, self.repeats = batch, repeats

    def costs(self, source: ImageSource, prompts: Sequence[str]) -> dict[str, list[float]]:
        """`{"memory": MiB}`, one for each measurement.

        Raises:
            RequestError: there are no prompts.
        """
        call_with(source, prompts, 1, 0)  # what is loaded or built on the first call belongs to no batch
        peak = cuda_peak if source.device.type == "cuda" else resident_growth
        peaks = []
        for call in range(self.repeats):
            work = partial(call_with, source, prompts, self.batch, call)
            peaks.append(peak(work, source.device) / MIB)
        return {"memory": peaks}


def cuda_peak(work: Callable[[], object], device: torch.device) -> float:
    """Bytes that torch's allocator holds on the device at the most while `work` runs."""
    gc.collect()
    torch.cuda.empty_cache()
    wait_for(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    wait_for(device)
    return float(torch.cuda.max_memory_allocated(device))


def resident_growth(work: Callable[[], object], device: torch.device) -> float:
    """Bytes by which the process's resident memory grows at the most while `work` runs; 0 where it does not.

    Memory that was freed before is first given back to the system where the C library can (glibc), or the process
    would use it again without growing.
    """
    import psutil

    process = psutil.Process()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if psutil.LINUX else None
    if trim is not None:
        trim(0)
    before = process.memory_info().rss
    most, done = before, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, process.memory_info().rss)
            done.wait(INTERVAL)

    watcher = threading.Thread(target=watch, name="memory", daemon=True)
    watcher.start()
    try:
        work()
    finally:
        most = max(most, process.memory_info().rss)
        done.set()
        watcher.join()
    return float(most - before)


class Parameters:
    """Parameters in millions: of each network, and of all, those that networks share counted once in the sum."""

    def __init__(self) -> None:
        self._better = {"parameters": "lower"}

    @property
    def better(self) -> Mapping[str, str]:
        """`parameters`, and after `costs` those of the networks that were met: `parameters-vae`, say."""
        return self._better

    def costs(self, source: ImageSource, prompts: Sequence[str]) -> dict[str, list[float]]:
        """`parameters` and `parameters-NAME` for each network, each exact."""
        counts: dict[str, list[float]] = {}
        everything: dict[int, int] = {}
        for name, network in source.networks.items():
            own = {id(parameter): parameter.numel() for parameter in network.parameters()}
            everything |= own
            counts[f"parameters-{name}"] = [sum(own.values()) / 1e6]
        self._better = dict.fromkeys(("parameters", *self._better, *counts), "lower")
        return {"parameters": [sum(everything.values()) / 1e6], **counts}
