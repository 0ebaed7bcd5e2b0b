"""Precision of network passes: autocast, weights in half precision, and which precision `auto` is on this machine.

`auto` is bfloat16 where the machine computes it and float32 elsewhere. A processor without instructions for bfloat16
emulates it, many times as slowly as it computes float32. Which it is follows from what the processor and PyTorch's
libraries say they have, `ATEN_CPU_CAPABILITY` and `ONEDNN_MAX_CPU_ISA` included, and never from a clock: one machine
always makes the same choice, whatever else runs on it, and so gives the same bits.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Settings' names of autocast dtypes; None means no autocast."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Settings' names of weight dtypes."""

FROZEN_DTYPES = {**DTYPES, "int8": torch.bfloat16, "nf4": torch.bfloat16}
"""Values of `frozen_precision`, and the dtype of frozen weights: of `int8` and `nf4`, of those not quantised."""

AUTO = "auto"
"""The setting that leaves the choice to `choose_precision`."""

ROWS, WIDTH = 256, 512
"""Of the layer that is measured: large enough that its products are what takes the time."""
REPEATS = 4
CLEAR = 3.0
"""A layer that takes this many times as long need not be measured again."""

EMULATING_LIMITS = ("AVX512_CORE", "AVX512_CORE_VNNI")
"""Values of `ONEDNN_MAX_CPU_ISA` with which oneDNN emulates bfloat16 and says that it supports it."""
NARROW_KERNELS = ("DEFAULT", "NO AVX", "AVX2")
"""What PyTorch calls the kernels of its own that know no bfloat16 instructions of an x86 processor."""


def pass_autocast(device_type: str, precision: torch.dtype | None) -> torch.autocast:
    """Autocast of network passes whose narrow copies of the weights live no longer than the graph that needs them.

    torch's cache would keep them until the outermost context ends: a network's whole weights, held while the rewards
    run. A pass reads each weight once, so there is nothing to gain from it: counted as in `benchmarks/step_cost`, the
    step of all PixArt's weights starts 16,038 kernels with the cache and 16,038 without it.

    Args:
        device_type: `"cuda"`, `"cpu"`, ...
        precision: the dtype, None for no autocast.
    """
    return torch.autocast(device_type, precision or torch.bfloat16, enabled=precision is not None, cache_enabled=False)


def full_precision(device: torch.device) -> torch.autocast:
    """Inside, passes on this device have the dtypes of their own tensors, whatever autocast is on around it.

    A gradient belongs in here too: a backward pass under autocast narrows the products of a forward pass that was not.
    """
    return torch.autocast(device.type, enabled=False)


@contextmanager
def tf32_products(device: torch.device, wanted: bool = True) -> Iterator[None]:
    """Inside, a GPU may round the factors of float32 products and convolutions to TF32; other devices have none.

    The switches are the process's, not the thread's, so backward passes that begin inside follow them as well.

    Args:
        device: where the passes run.
        wanted: False leaves the switches as they are.
    """
    if not wanted or device.type != "cuda":
        yield
        return
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = True
        yield
    finally:
        for switch, allowed in zip(switches, before, strict=True):
            switch.allow_tf32 = allowed


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision as float32 and anything wider as it is, with its graph: gradients flow back in the old dtype."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def narrowed_to(device: torch.device) -> torch.dtype | None:
    """The dtype that autocast narrows passes on this device to at the moment; None where it is off."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


@contextmanager
def matching_autocast(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Autocast to the dtype of the network's weights where that is half precision and no autocast is on already.

    A frozen network may keep its weights in bfloat16; samples, times and adapters stay float32 around it.
    """
    narrow = next(
        (weight.dtype for weight in network.parameters() if weight.dtype in (torch.bfloat16, torch.float16)), None
    )
    if narrow is None or torch.is_autocast_enabled(device.type):
        yield
        return
    with pass_autocast(device.type, narrow):
        yield


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision of a run's passes.

    Attributes:
        name: `fp32`, `bf16` or `fp16`.
        reason: why it is this one.
        slowdown: how many times as long a layer takes as in float32, where the precision was named and is slow;
            1 elsewhere.
    """

    name: str
    reason: str
    slowdown: float = 1.0

    def __str__(self) -> str:
        return f"precision {self.name}: {self.reason}"


def layer_time(dtype: torch.dtype | None, clock: Callable[[], float] = time.process_time) -> float:
    """Seconds that a small linear layer takes on the CPU, forward and backward.

    Processor time, so that what else the machine does counts little.

    Args:
        dtype: autocast dtype, None for float32.
        clock: gives seconds.
    """
    layer = nn.Linear(WIDTH, WIDTH, device="meta").to_empty(device="cpu")
    inputs = torch.full((ROWS, WIDTH), 0.5)
    with torch.no_grad():  # no random numbers: a run's are those of its seed, whatever was measured before
        layer.weight.fill_(0.01)
        layer.bias.fill_(0.0)  # type: ignore[union-attr]
    started = clock()
    with torch.enable_grad():
        with pass_autocast("cpu", dtype):
            output = layer(inputs.requires_grad_(True))
        output.float().sum().backward()
    return clock() - started


@cache
def slowdown(dtype: torch.dtype) -> float:
    """How many times as long a layer takes on this CPU in `dtype` as in float32; measured once a process."""
    layer_time(None)  # the first pass of each pays for what is made once
    layer_time(dtype)
    plain = narrow = float("inf")
    for _ in range(REPEATS):  # in turns: the fastest of each is what other work disturbed least
        plain, narrow = min(plain, layer_time(None)), min(narrow, layer_time(dtype))
        if narrow > CLEAR * plain:
            break
    return narrow / max(plain, 1e-9)


def has_bf16_instructions() -> bool | None:
    """Whether PyTorch computes bfloat16 with instructions of this CPU; None where it cannot tell.

    oneDNN, which computes products and convolutions, says whether it supports bfloat16, and follows its own limit. On
    x86 more is asked, because it counts emulation by 512-bit instructions as support: the processor itself, the limit
    by name, and the kernels that PyTorch brings itself, whose attention fails in bfloat16 below AVX-512 where oneDNN
    has the instructions.
    """
    library = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    answer = library() if library is not None else None
    if answer is False or platform.machine().lower() not in ("x86_64", "amd64"):
        return answer
    if _onednn_limit() in EMULATING_LIMITS or torch.backends.cpu.get_cpu_capability() in NARROW_KERNELS:
        return False
    queries = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    answers = [bool(query()) for query in queries if query is not None]
    return any(answers) if answers else answer


def _onednn_limit() -> str:
    """The instructions that oneDNN is held to by name; empty where it is not."""
    return (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "").upper()


def _limits() -> str:
    """The variables that hold PyTorch's libraries back, as they would be typed; empty where there are none."""
    names = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
    return " ".join(f"{name}={os.environ[name]}" for name in names if os.environ.get(name))


def _as_long(times: float) -> str:
    return f"a layer takes {times:.0f} times as long" if times >= 2 else f"a layer takes {times:.1f} times as long"


def _on_cpu() -> PrecisionChoice:
    native, limits = has_bf16_instructions(), _limits()
    if native:
        return PrecisionChoice("bf16", "this CPU computes it")
    if native is None:
        return PrecisionChoice("fp32", "PyTorch does not say whether this CPU computes bf16")
    under = f" under {limits}" if limits else ""
    return PrecisionChoice("fp32", f"this CPU has no instructions for bf16{under}")


def _on_gpu(device: torch.device) -> PrecisionChoice:
    with torch.cuda.device(device):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name(device)
    if native:
        return PrecisionChoice("bf16", f"{name} computes it")
    return PrecisionChoice("fp32", f"{name} does not compute bf16")


def _elsewhere(device: torch.device) -> PrecisionChoice:
    if device.type == "mps":
        native = torch.backends.mps.is_macos_or_newer(14, 0)
        missing = "bf16 needs macOS 14"
    else:
        module = getattr(torch, device.type, None)
        native = bool(getattr(module, "is_bf16_supported", bool)())
        missing = f"{device.type} does not report that it computes bf16"
    return PrecisionChoice("bf16", f"{device.type} computes it") if native else PrecisionChoice("fp32", missing)


def choose_precision(setting: str, device: torch.device, why: str = "as asked") -> PrecisionChoice:
    """The precision of passes on a device.

    Args:
        setting: `auto` for what is best there; a named precision is kept, whatever it costs.
        device: where the passes run.
        why: the reason that is recorded for a named precision.
    """
    if setting == AUTO:
        return {"cpu": _on_cpu, "cuda": lambda: _on_gpu(device)}.get(device.type, lambda: _elsewhere(device))()
    dtype = PRECISIONS[setting]
    if device.type == "cpu" and dtype is not None and not (dtype is torch.bfloat16 and has_bf16_instructions()):
        times = slowdown(dtype)  # for the words alone: the precision stays
        if times > 1:
            return PrecisionChoice(
                setting, f"{why}, though this CPU is slow at it ({_as_long(times)} as in fp32)", times
            )
    return PrecisionChoice(setting, why)


def native_autocast(device_type: str = "cpu") -> torch.autocast:
    """Autocast to the precision that `auto` is on a device, for passes outside a run.

    Args:
        device_type: `"cuda"`, `"cpu"`, ...
    """
    return pass_autocast(device_type, PRECISIONS[choose_precision(AUTO, torch.device(device_type)).name])
