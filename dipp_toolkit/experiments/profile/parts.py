"""Seconds, peak memory, operations and waits of a step's parts, on a CPU or a GPU."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ...planning.dry_run import Meter
from ...utils.host_waits import HostWaits
from ...utils.step_parts import REST, heard_by

GPU_MARK = "dipp: "
"""What a part's name begins with in a trace."""


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class _Nested:
    """Parts inside parts; `_mark` is called wherever the innermost one changes."""

    def __init__(self) -> None:
        super().__init__()
        self._open: list[str] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part of a step; it may stand inside another one."""
        self._mark()
        self._open.append(name)
        try:
            yield
        finally:
            self._mark()
            self._open.pop()

    def _mark(self) -> None:
        """What was done since the last mark belongs to the innermost part."""
        raise NotImplementedError


class PartTimer(_Nested):
    """Times the parts of steps, each without the parts inside it, and on a GPU notes their peak memory.

    On a GPU, events on the stream mark where parts begin and end: nothing waits, and steps take as long as without a
    timer. A part's seconds are the GPU's there, those in which it had nothing to do included; a CPU's are the wall's.

    Attributes:
        device: of the run.
        seconds: of each step as a whole, by the wall, the device's work included.
        by_part: of each step, by part.
        peaks: most bytes that were allocated on a GPU during a part, by part; empty elsewhere.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.seconds: list[float] = []
        self.by_part: list[dict[str, float]] = []
        self.peaks: dict[str, int] = {}
        self._marks: list[tuple[str, Any]] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step; one that fails is not noted."""
        wait(self.device)
        self._marks = []
        started = time.perf_counter()
        with heard_by(self), self.part(REST):
            yield
        wait(self.device)
        self.seconds.append(time.perf_counter() - started)
        self.by_part.append(self._read())

    def _mark(self) -> None:
        part = self._open[-1] if self._open else ""
        self.boundary(part)
        if self.device.type != "cuda":
            wait(self.device)
            self._marks.append((part, time.perf_counter()))
        elif not torch.cuda.is_current_stream_capturing():
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append((part, event))

    def boundary(self, part: str) -> None:
        """Note the memory of what is left, and begin again; `part` is empty before a step's first."""
        if self.device.type != "cuda":
            return
        if part:
            self.peaks[part] = max(self.peaks.get(part, 0), torch.cuda.max_memory_allocated(self.device))
        torch.cuda.reset_peak_memory_stats(self.device)

    def _read(self) -> dict[str, float]:
        seconds: dict[str, float] = defaultdict(float)
        for (_, before), (part, now) in zip(self._marks, self._marks[1:], strict=False):
            seconds[part] += before.elapsed_time(now) / 1e3 if self.device.type == "cuda" else now - before
        return dict(seconds)


class PartMeter(_Nested, Meter):
    """Counts what the parts of one step compute, call, hold and wait for, while it is the dispatch mode.

    Attributes:
        waits: of the host for the device; on a CPU the numbers that Python reads, for which it would wait on a GPU.
        flops_by_part: floating-point operations, a multiply and an add as two.
        calls_by_part: calls that compute something.
        waits_by_part: of the host.
        held_by_part: most bytes alive at once of what the step has made, by part.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.waits = HostWaits(host_too=device.type == "cpu")
        self.flops_by_part: dict[str, int] = defaultdict(int)
        self.calls_by_part: dict[str, int] = defaultdict(int)
        self.waits_by_part: dict[str, int] = defaultdict(int)
        self.held_by_part: dict[str, int] = defaultdict(int)
        self._before = (0, 0, 0)

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step."""
        with self, self.waits, heard_by(self), self.part(REST):
            yield

    def _mark(self) -> None:
        now = (self.flops, self.launches, self.waits.total)
        if self._open:
            part = self._open[-1]
            counts = (self.flops_by_part, self.calls_by_part, self.waits_by_part)
            for count, before, after in zip(counts, self._before, now, strict=True):
                count[part] += after - before
            self.held_by_part[part] = max(self.held_by_part[part], self.peak)
        self._before, self.peak = now, self.now


class PartMarks:
    """Names the parts in a trace of torch's profiler."""

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step."""
        with heard_by(self), self.part(REST):
            yield

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part of a step; it may stand inside another one."""
        with torch.profiler.record_function(f"{GPU_MARK}{name}"):
            yield
