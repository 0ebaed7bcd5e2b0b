"""Where the host waits for the device: what is read off it, copied to or from it, or sized by what is on it.

A GPU is given its kernels ahead of time, and computes without pause as long as nobody asks what came out. Each question
empties its queue: a number that Python reads, a mask whose true elements are counted to size a result, a copy from
memory that is not pinned. `HostWaits` counts them as operations are dispatched, on any device; `waits_are_errors` has
CUDA itself raise at each, which also finds those inside a kernel's own code.

    with HostWaits() as waits:
        loop.one_step()
    print(waits.table())

Without a GPU, `dipp_toolkit.utils.stand_in_device` is a device that computes on the CPU and is counted as a GPU would
be. The counting is ours: torch's debug mode needs a GPU and names no line of Python's, and its profiler shows waits as
time, of a GPU alone.

The state of a CUDA generator (`get_state`, `set_state`) is a seed and an offset that the host keeps: reading it is no
wait.
"""

from __future__ import annotations

import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

Kind = Literal["read", "size", "to host", "to device"]
aten = torch.ops.aten

READS = {aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten._linalg_check_errors}
"""Operations that give Python a number of the device's."""

SIZES = {
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
}
"""Operations whose result has as many elements as the numbers say."""

INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
ALSO_READ = ("tolist", "numpy", "__array__")
"""Methods of a tensor that read the CPU's memory without an operation."""

LIBRARIES = tuple(sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib"))
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OWN = tuple(str(HERE / name) for name in ("host_waits.py", "stand_in_device.py", "device.py", "step_parts.py"))


@dataclass(frozen=True)
class Wait:
    """A place where the host waits.

    Attributes:
        kind: a number is `read`, a result's `size` is, or a tensor is copied `to host` or `to device`.
        operation: as torch names it.
        where: file, line and function of the innermost code outside libraries.
    """

    kind: Kind
    operation: str
    where: str


class HostWaits:
    """Counts, inside its context, the operations for which the host waits.

    Copies that do not block are none, and neither is what happens among the CPU's own tensors.

    Args:
        host_too: count numbers that are read from the CPU's own tensors as well, as a run on the CPU does. Copies
            cannot be counted then: there are none.
    """

    def __init__(self, host_too: bool = False) -> None:
        self.host_too = host_too
        self.counts: Counter[Wait] = Counter()
        self._contexts = ExitStack()

    def __enter__(self) -> HostWaits:
        self._contexts.enter_context(_Dispatched(self))
        if self.host_too:
            self._contexts.enter_context(_Called(self))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._contexts.close()

    @property
    def total(self) -> int:
        """How often the host waited."""
        return self.counts.total()

    @property
    def by_kind(self) -> dict[str, int]:
        """How often, by kind; kinds that did not occur are left out."""
        kinds: Counter[str] = Counter()
        for wait, count in self.counts.items():
            kinds[wait.kind] += count
        return dict(kinds)

    def clear(self) -> None:
        """Begin again at none."""
        self.counts.clear()

    def table(self) -> str:
        """A line a place, the most frequent first."""
        return "\n".join(
            f"{count} x {wait.kind}, {wait.operation}: {wait.where}" for wait, count in self.counts.most_common()
        )

    def note(self, kind: Kind, operation: str) -> None:
        """The host waits here, in what called this."""
        self.counts[Wait(kind, operation, _place())] += 1

    def counted(self, tensor: object) -> bool:
        """Whether reading this makes the host wait."""
        return isinstance(tensor, Tensor) and (self.host_too or on_device(tensor))


def on_device(tensor: Tensor) -> bool:
    """Whether a tensor's numbers are not in the host's memory."""
    return tensor.device.type not in ("cpu", "meta")


def wait_of(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any], counted: Callable[[object], bool]) -> Any:
    """The kind of wait that an operation is; None where it is none.

    Args:
        operation: an overload of torch's.
        args: its arguments.
        kwargs: likewise.
        counted: whether a tensor is one to wait for.
    """
    packet, first = operation.overloadpacket, args[0] if args else None
    sized = operation is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None
    if sized or packet in SIZES or packet in READS:
        kind = "read" if packet in READS else "size"
        return kind if any(map(counted, args)) else None
    if packet in INDEXING:
        return _wait_of_index(first, args[1], args[2:], counted)
    if packet is aten._to_copy:
        target = kwargs.get("device")
        return None if target is None else _wait_of_copy(first, target, kwargs.get("non_blocking"))
    if packet is aten.copy_:
        blocks = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
        return _wait_of_copy(args[1], first.device, blocks)  # type: ignore[union-attr]
    return None


def _wait_of_index(values: Any, indices: Sequence[Any], rest: Sequence[Any], counted: Callable[[object], bool]) -> Any:
    if not counted(values):
        return None
    given = [index for index in indices if isinstance(index, Tensor)]
    if on_device(values) and any(not on_device(index) for index in given):
        return "to device"
    one_number = bool(rest) and isinstance(rest[0], Tensor) and rest[0].numel() == 1  # filled in under the mask
    masks = any(index.dtype in (torch.bool, torch.uint8) for index in given)
    return "size" if masks and not one_number else None


def _wait_of_copy(source: Any, target: torch.device, non_blocking: Any) -> Any:
    from_device, to_device = on_device(source), target.type not in ("cpu", "meta")
    if non_blocking or from_device == to_device or source.device.type == "meta":
        return None
    return "to device" if to_device else "to host"


class _Dispatched(TorchDispatchMode):
    def __init__(self, waits: HostWaits):
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = wait_of(func, args, kwargs or {}, self.waits.counted)
        if kind is not None:
            self.waits.note(kind, str(func.overloadpacket).removeprefix("aten."))
        return func(*args, **(kwargs or {}))


class _Called(TorchFunctionMode):
    def __init__(self, waits: HostWaits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ALSO_READ and args and isinstance(args[0], Tensor) and not on_device(args[0]):
            self.waits.note("read", name)
        return func(*args, **(kwargs or {}))


def _place() -> str:
    """The innermost line outside libraries and this file, and whom it was called by from another file."""
    frame: Any = sys._getframe(1)
    lines: list[str] = []
    files: set[str] = set()
    while frame is not None and len(lines) < 2:
        file = frame.f_code.co_filename
        if not file.startswith((*LIBRARIES, "<")) and file not in OWN and file not in files:
            files.add(file)
            path = Path(file)
            name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
            lines.append(f"{name}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(lines) or "a library"


@contextmanager
def waits_are_errors(device: torch.device) -> Iterator[None]:
    """On a GPU, CUDA raises a RuntimeError wherever the host would wait, `awaited` aside; elsewhere nothing changes.

    Args:
        device: of the run.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def awaited(device: torch.device) -> Iterator[None]:
    """A wait that is meant, such as the one transfer of a step's numbers: `waits_are_errors` lets it pass."""
    before = torch.cuda.get_sync_debug_mode() if device.type == "cuda" else 0
    if not before:
        yield
        return
    torch.cuda.set_sync_debug_mode("default")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
