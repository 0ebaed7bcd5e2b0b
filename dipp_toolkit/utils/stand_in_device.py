"""A device for machines without one: its tensors compute on the CPU and are told apart from the CPU's own.

    with stand_in_device() as device, HostWaits() as waits:
        parts = assemble(config.model_copy(update={"device": str(device)}))

Code sees a device that is neither `cpu` nor known, and takes the way it takes on a GPU. Numbers are those of the CPU's
own kernels. It is ours because torch has nothing between its fake tensors, which hold no numbers and stop at the first
that is read, and a device of one's own in C++. It is slow, some 20 microseconds an operation, and for tests and counts
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

DEVICE = torch.device("lazy:0")
"""A type that torch's autograd runs in the calling thread, and that nothing else here uses."""
HOST = torch.device("cpu")
MAKERS = {torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor}
"""Functions that copy Python's numbers to a device without an operation that a mode could see."""
INDEXED = {Tensor.__getitem__, Tensor.__setitem__}


class StandInTensor(Tensor):
    """A tensor of the device; `kept` is the CPU's."""

    kept: Tensor

    @staticmethod
    def __new__(cls, values: Tensor, requires_grad: bool = False) -> StandInTensor:
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined, no-any-return]
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
            requires_grad=requires_grad,
        )

    def __init__(self, values: Tensor, requires_grad: bool = False) -> None:
        self.kept = values

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["kept"], None

    @staticmethod
    def __tensor_unflatten__(parts: Any, context: Any, size: Any, stride: Any) -> StandInTensor:
        return StandInTensor(parts["kept"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copy = StandInTensor(self.kept.clone(), self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                copy._is_param = True
            memo[id(self)] = copy
        return cast(Tensor, memo[id(self)])

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"StandInTensor({self.kept!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _computed(func, args, kwargs or {})


def _computed(operation: Any, args: Any, kwargs: Any) -> Any:
    """An operation on the CPU; its result is the device's where an argument is, or where it is asked for there."""
    target = kwargs.get("device")
    asked = isinstance(target, torch.device) and target.type == DEVICE.type
    there = False

    def values_of(tensor: StandInTensor) -> Tensor:
        nonlocal there
        there = True
        return tensor.kept

    plain_args, plain_kwargs = (_mapped(part, StandInTensor, values_of) for part in (args, kwargs))
    if asked:
        plain_kwargs = {**plain_kwargs, "device": HOST}
    result = operation(*plain_args, **plain_kwargs)
    if asked and operation.overloadpacket is torch.ops.aten._to_copy and result is plain_args[0]:
        result = result.clone()
    if not (asked or (there and target is None)):
        return result
    result = _mapped(result, Tensor, StandInTensor)
    return return_and_correct_aliasing(operation, args, kwargs, result) if there else result


def _mapped(value: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """A function of everything of this kind in an operation's arguments or results."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, tuple | list):
        return type(value)(_mapped(item, kind, function) for item in value)
    if isinstance(value, dict):
        return {name: _mapped(item, kind, function) for name, item in value.items()}
    return value


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What reaches the device, or leaves it, by ways that dispatch nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("tolist", "numpy", "__array__") and isinstance(args[0], StandInTensor):
            return func(args[0].detach().cpu(), *args[1:], **kwargs)
        if func in MAKERS and kwargs.get("device") is not None and torch.device(kwargs["device"]).type == DEVICE.type:
            if args and isinstance(args[0], StandInTensor):
                return args[0].to(kwargs.get("dtype") or args[0].dtype)
            return func(*args, **{**kwargs, "device": HOST}).to(DEVICE)
        if func in INDEXED and isinstance(args[0], StandInTensor):
            args = (args[0], _indices(args[1]), *args[2:])
        return func(*args, **kwargs)


def _indices(index: Any) -> Any:
    """Lists of an index as the device's tensors, which torch would copy there by itself."""
    if isinstance(index, tuple):
        return tuple(map(_indices, index))
    return torch.tensor(index).to(DEVICE) if isinstance(index, list) else index


class _Generator(torch.Generator):
    """A generator of the device: the CPU's numbers."""

    on_device: bool = False

    def __new__(cls, device: Any = "cpu") -> _Generator:
        on_device = torch.device(device).type == DEVICE.type
        made: _Generator = super().__new__(cls, HOST if on_device else device)  # type: ignore[call-arg]
        made.on_device = on_device
        return made

    def __init__(self, device: Any = "cpu") -> None:
        super().__init__()

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE if self.on_device else super().device


@contextmanager
def stand_in_device() -> Iterator[torch.device]:
    """The device, which exists inside this context alone."""
    autocast, enabled, dtype = torch.autocast.__init__, torch.is_autocast_enabled, torch.get_autocast_dtype

    def known(kind: str) -> str:
        return HOST.type if kind == DEVICE.type else kind

    def begin(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        autocast(self, known(device_type), *args, **kwargs)

    changes: list[tuple[Any, str, Any]] = [
        (torch.autocast, "__init__", begin),
        (torch, "is_autocast_enabled", lambda *kind: enabled(*map(known, kind))),
        (torch, "get_autocast_dtype", lambda kind: dtype(known(kind))),
        (torch, "Generator", _Generator),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        with _Functions(), _Operations():
            yield DEVICE
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
