"""Seconds, peak memory and operations of named parts of a step, on a CPU or on a GPU."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def resident() -> int:
    """This process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Operations(TorchDispatchMode):
    """Counts floating-point operations as plans do, a multiply and an add as two."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from dipp_toolkit.planning.dry_run import operations

        result = func(*args, **(kwargs or {}))
        self.count += operations(func, args, kwargs or {}, result)
        return result


@dataclass
class Part:
    """What a part took, without the parts inside it; of all recorded steps together, but for the peak."""

    seconds: float = 0.0
    peak: float = 0.0
    operations: int = 0


class Watch:
    """Records parts while it is told to; otherwise it costs nothing.

    On a GPU a part begins and ends by waiting for the device, so that recorded steps are a little slower than others.
    Peaks are of allocated memory there, and of resident memory, sampled every few milliseconds, on a CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.parts: dict[str, Part] = {}
        self._open: list[str] = []
        self._seconds, self._operations = False, Operations()
        self._since, self._counted = 0.0, 0
        self._recording = False
        if not self.cuda:
            threading.Thread(target=self._sample, daemon=True).start()

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.cuda:
            torch.cuda.synchronize()

    def _sample(self) -> None:
        while True:
            now = resident()
            for name in self._open[-1:]:
                self.parts[name].peak = max(self.parts[name].peak, now)
            time.sleep(0.005)

    def _charge(self) -> None:
        """What was used since the last change of parts goes to the innermost one."""
        self.wait()
        now, count = time.perf_counter(), self._operations.count
        if self._open:
            part = self.parts[self._open[-1]]
            part.operations += count - self._counted
            if self._seconds:
                part.seconds += now - self._since
                part.peak = max(part.peak, torch.cuda.max_memory_allocated() if self.cuda else resident())
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        self._since, self._counted = time.perf_counter(), count

    @contextmanager
    def recording(self, *, seconds: bool = False, operations: bool = False) -> Iterator[None]:
        """Parts are recorded inside."""
        self._recording, self._seconds = True, seconds
        try:
            with ExitStack() as stack:
                if operations:
                    stack.enter_context(self._operations)
                yield
        finally:
            self._recording = False

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part of a step; it may stand inside another one."""
        if not self._recording:
            yield
            return
        self._charge()
        self.parts.setdefault(name, Part())
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as a part."""

        def watched(*arguments: Any, **options: Any) -> Any:
            with self.part(name):
                return function(*arguments, **options)

        return watched

    def calls_of(self, module: Any, name: str) -> None:
        """Calls of an object become a part; it stays of its class."""
        kind = type(module)
        module.__class__ = type(kind.__name__, (kind,), {"__call__": self.around(name, kind.__call__)})
