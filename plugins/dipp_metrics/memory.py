"""`memory`: the most memory that is held while a batch is made."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from dipp_toolkit.errors import RequestError
from dipp_toolkit.protocols import ImageSource

from .calls import call_with, wait_for

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
                f"The metric 'memory' takes a batch and repeats from 1; got batch={batch}, repeats={repeats}."
            )
        self.batch, self.repeats = batch, repeats

    def costs(self, source: ImageSource, prompts: Sequence[str]) -> dict[str, list[float]]:
        """`{"memory": MiB}`, one for each measurement.

        Raises:
            RequestError: there is no prompt.
        """
        call_with(source, prompts, 1, 0)  # what is loaded or built on the first call belongs to no batch
        peak = cuda_peak if source.device.type == "cuda" else resident_growth
        found = []
        for call in range(self.repeats):
            work = partial(call_with, source, prompts, self.batch, call)
            found.append(peak(work, source.device) / MIB)
        return {"memory": found}


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
