"""Dry runs: the real code on tensors that have shapes and no memory, watched for bytes and operations."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from ..models.activation_offload import is_moved
from ..models.launches import VIEWS
from ..utils.collection import without_collection

HALF = (torch.bfloat16, torch.float16)
WIDE = ("group_norm", "layer_norm", "softmax", "cosine_similarity")
"""Of torch.nn.functional, what autocast computes in float32 on a GPU and in half precision on a CPU."""

CONVOLUTIONS = (torch.ops.aten.convolution, torch.ops.aten.convolution_backward)
"""Their kernels work on copies of inputs and outputs in an order of their own, which live for the call."""


def operations(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """Floating-point operations of an aten call, by the formulas of torch's own counter; 0 where it has none.

    It has none of a CPU's fused attention, whose formula is that of a GPU's.
    """
    if func._overloadpacket is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
        return int(sdpa_flop_count(*(tensor.shape for tensor in args[:3])))
    if func._overloadpacket is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return int(sdpa_backward_flop_count(*(tensor.shape for tensor in args[:4])))
    formula = flop_registry.get(func._overloadpacket)
    return int(formula(*args, **kwargs, out_val=result)) if formula is not None else 0


@contextmanager
def gpu_casts() -> Iterator[None]:
    """Under a CPU's autocast, the casts that a GPU's makes: norms and softmaxes are made, and kept, in float32."""

    def widened(function: Any) -> Any:
        def float32(value: Any) -> Any:
            return value.float() if isinstance(value, torch.Tensor) and value.dtype in HALF else value

        def wide(*args: Any, **kwargs: Any) -> Any:
            if torch.is_autocast_enabled("cpu"):
                args = tuple(map(float32, args))
                kwargs = {name: float32(value) for name, value in kwargs.items()}
            return function(*args, **kwargs)

        return wide

    kept = {name: getattr(F, name) for name in WIDE}
    try:
        for name, function in kept.items():
            setattr(F, name, widened(function))
        yield
    finally:
        for name, function in kept.items():
            setattr(F, name, function)


class MeterState(NamedTuple):
    """What a meter has counted so far; see there."""

    now: int
    peak: int
    flops: int
    launches: int


class Meter(TorchDispatchMode):
    """Counts the bytes of storages made inside it, while they live, and floating-point operations.

    Attributes:
        active: meters that one is inside of, at the end the one that counts.
        now: bytes alive.
        peak: most bytes that were alive at once.
        flops: operations so far, by the formulas of torch's own flop counter.
        launches: calls so far that start a kernel.
    """

    active: ClassVar[list[Meter]] = []

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak, self.flops, self.launches = 0, 0, 0, 0
        self._seen: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    @property
    def state(self) -> MeterState:
        """What was counted so far."""
        return MeterState(self.now, self.peak, self.flops, self.launches)

    @state.setter
    def state(self, state: MeterState) -> None:
        self.now, self.peak, self.flops, self.launches = state

    def __enter__(self) -> Meter:
        self.active.append(self)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self.active.remove(self)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self is not self.active[-1]:
            return func(*args, **(kwargs or {}))
        if func is torch.ops.prim.device.default:  # three calls of five: autograd asks each tensor where it is
            return args[0].fake_device if isinstance(args[0], FakeTensor) else func(*args, **(kwargs or {}))
        given = _storages((args, kwargs)) if _may_return_arguments(func) else ()
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in CONVOLUTIONS:
            touched = [*tree_iter(args), *tree_iter(result)]
            reordered = sum(tensor.nbytes for tensor in touched if isinstance(tensor, torch.Tensor))
            self.peak = max(self.peak, self.now + reordered)
        self.flops += operations(func, args, kwargs or {}, result)
        self.launches += func._overloadpacket.__name__ not in VIEWS
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage(), given)
        return result

    def _count(self, storage: torch.UntypedStorage, given: Collection[int]) -> None:
        key = storage._cdata
        if key in self._seen or key in given:
            return
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)

        def freed(_: object) -> None:
            del self._seen[key]
            self.now -= size

        self._seen[key] = weakref.ref(storage, freed)


def _storages(values: Any) -> set[int]:
    return {leaf.untyped_storage()._cdata for leaf in tree_iter(values) if isinstance(leaf, torch.Tensor)}


@cache
def _may_return_arguments(func: Any) -> bool:
    """Whether an aten call may give back a tensor it was given, or a view of one, as its schema says."""
    return any(value.alias_info is not None for value in func._schema.returns)


def faked(*networks: nn.Module) -> None:
    """Replace the tensors of networks built on the meta device by dry ones, inside `dry()`; shared ones stay shared.

    Tensors that modules keep as plain attributes, alone or in lists, such as Lumina's angles under diffusers 0.35, are
    replaced too.
    """
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def dried(value: Any) -> Any:
        if type(value) in (list, tuple):
            return type(value)(map(dried, value)) if any(isinstance(one, torch.Tensor) for one in value) else value
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) not in made:
            fake = torch.empty(value.shape, dtype=value.dtype, device="cpu")
            kept = nn.Parameter(fake, value.requires_grad) if isinstance(value, nn.Parameter) else fake
            made[id(value)] = kept, value  # keeps the original alive, so that its id is not given to another
        return made[id(value)][0]

    for module in (module for network in networks for module in network.modules()):
        for kept in (module._parameters, module._buffers, vars(module)):
            for name, value in kept.items():
                kept[name] = dried(value)


@dataclass(frozen=True)
class Cost:
    """What a piece of a step needs.

    Attributes:
        peak: most bytes alive at once, beside what was there before.
        kept: bytes still alive when it is over: a graph that waits for its backward pass.
        flops: floating-point operations, a multiply and an add counted as two.
        launches: kernels that are started.
        moved: bytes copied between device and host.
    """

    peak: int = 0
    kept: int = 0
    flops: int = 0
    launches: int = 0
    moved: int = 0


class DryOffload(saved_tensors_hooks):
    """`models.activation_offload` in a dry run: what it moves has no bytes until the backward pass asks for it.

    Attributes:
        copies: to the host.
        moved: bytes, of both ways.
    """

    def __init__(self) -> None:
        self.copies, self.moved = 0, 0
        super().__init__(self._to_host, self._to_device)

    def _to_host(self, tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
        if not is_moved(tensor):
            return lambda: tensor
        self.copies += 1
        self.moved += 2 * tensor.nbytes
        shape, stride, dtype = tensor.shape, tensor.stride(), tensor.dtype
        return lambda: torch.empty_strided(shape, stride, dtype=dtype)

    def _to_device(self, kept: Callable[[], torch.Tensor]) -> torch.Tensor:
        return kept()


@contextmanager
def dry(gpu: bool = False) -> Iterator[FakeTensorMode]:
    """Tensors made inside have shapes, dtypes and a CPU's choice of kernels, and no memory.

    Args:
        gpu: whether autocast takes a GPU's dtypes.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with without_collection(), fake as mode, gpu_casts() if gpu else nullcontext():
        yield mode


def cost_of(function: Callable[[], Any], keep: bool = False) -> tuple[Cost, Any]:
    """Run a function dry, inside `dry()`.

    Args:
        function: what to run.
        keep: return what it returned, so that its graph lives on.
    """
    with Meter() as meter:
        result = function()
        if not keep:
            result = None
        kept = meter.now
    return Cost(meter.peak, kept, meter.flops, meter.launches), result
