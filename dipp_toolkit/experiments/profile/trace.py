"""What a trace of torch's profiler says of a GPU: launches and waits by part, and how long the GPU was busy."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import RequestError
from ...utils.messages import shown
from ...utils.step_parts import REST
from .parts import GPU_MARK

LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
"""What the names of CUDA's calls that start kernels begin with; a graph is one launch, however many it has."""
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
"""Categories of what a GPU does."""


@dataclass(frozen=True)
class GpuUse:
    """What a GPU did in the traced steps.

    Attributes:
        seconds: from the beginning of the first step to the end of the last.
        busy: of these, those in which the GPU did something.
        launches: by part; a CUDA graph is one.
        waits: times the host waited for the GPU, by part.
        waited: seconds that it did, by part.
        to_host: copies from the GPU to the host.
    """

    seconds: float = 0.0
    busy: float = 0.0
    launches: Mapping[str, int] = field(default_factory=dict)
    waits: Mapping[str, int] = field(default_factory=dict)
    waited: Mapping[str, float] = field(default_factory=dict)
    to_host: int = 0


def gpu_use(events: Iterable[Mapping[str, Any]]) -> GpuUse:
    """Read a trace's events (`traceEvents`, times in microseconds).

    What the profiler itself waits for, outside of every step, is left out.
    """
    spans = [event for event in events if event.get("ph") == "X"]
    marks = [event for event in spans if event.get("cat") == "user_annotation" and _name(event).startswith(GPU_MARK)]
    steps = [event for event in marks if _name(event) == f"{GPU_MARK}{REST}"]
    if not steps:
        return GpuUse()
    parts = _Parts(marks)
    launches: Counter[str] = Counter()
    waits: Counter[str] = Counter()
    waited: Counter[str] = Counter()
    for event in spans:
        if event.get("cat") not in ("cuda_runtime", "cuda_driver"):
            continue
        part = parts.at(float(event["ts"]))
        if part is None:
            continue
        if _name(event).startswith(LAUNCHES):
            launches[part] += 1
        elif _name(event).startswith(WAITS):
            waits[part] += 1
            waited[part] += float(event.get("dur", 0)) / 1e6  # type: ignore[assignment]
    work = [event for event in spans if event.get("cat") in ON_GPU]
    end = max(map(_end, [*steps, *work]))
    return GpuUse(
        seconds=(end - min(float(event["ts"]) for event in steps)) / 1e6,
        busy=_covered([(float(event["ts"]), _end(event)) for event in work]) / 1e6,
        launches=dict(launches),
        waits=dict(waits),
        waited=dict(waited),
        to_host=sum(event.get("cat") == "gpu_memcpy" and "DtoH" in _name(event) for event in work),
    )


def _name(event: Mapping[str, Any]) -> str:
    return str(event.get("name", ""))


def _end(event: Mapping[str, Any]) -> float:
    return float(event["ts"]) + float(event.get("dur", 0))


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """How much of the time line spans cover, those that overlap counted once."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered


class _Parts:
    """Finds the innermost part of a moment; a backward pass's launches come from a thread of their own."""

    def __init__(self, marks: Sequence[Mapping[str, Any]]):
        edges = [(float(mark["ts"]), 1, _name(mark).removeprefix(GPU_MARK)) for mark in marks]
        edges += [(_end(mark), 0, _name(mark).removeprefix(GPU_MARK)) for mark in marks]
        self._since: list[float] = []
        self._parts: list[str | None] = []
        open_parts: list[str] = []
        for moment, begins, name in sorted(edges, key=lambda edge: edge[:2]):
            if begins:
                open_parts.append(name)
            elif name in open_parts:
                del open_parts[len(open_parts) - 1 - open_parts[::-1].index(name)]
            self._since.append(moment)
            self._parts.append(open_parts[-1] if open_parts else None)

    def at(self, moment: float) -> str | None:
        """The innermost part; None outside of every step."""
        from bisect import bisect_right

        place = bisect_right(self._since, moment)
        return self._parts[place - 1] if place else None


def read_trace(path: Path) -> list[dict[str, Any]]:
    """The events of a Chrome trace, gzipped or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        events: list[dict[str, Any]] = json.load(file)["traceEvents"]
    return events


def check_trace_place(path: Path) -> None:
    """Refuse, before anything is measured, a place that a trace cannot be written to.

    Raises:
        RequestError: its ending is not that of a trace, its folder is missing, or it is a folder itself.
    """
    if not path.name.endswith((".json", ".json.gz")):
        raise RequestError(
            f"--trace {shown(path)} does not end in .json or .json.gz, as a trace must. Name such a file."
        )
    if path.is_dir():
        raise RequestError(f"--trace {shown(path)} is a folder; a trace is a file. Name one in it.")
    if not path.parent.is_dir():
        raise RequestError(
            f"--trace {shown(path)} is in a folder that does not exist. Make {shown(path.parent)}, or name another one."
        )
