"""The devices of this machine: which there are, which is chosen, what a run on one reports, and how it is read."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping

import torch
from torch import Tensor

from ..distributed import launched_count
from ..errors import RequestError, first_line
from .host_waits import awaited


def devices_here() -> dict[str, str]:
    """The devices by the names that `--device` takes, each with its product name, empty where there is none."""
    names = {"cpu": ""}
    for index in range(torch.cuda.device_count()):
        names[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    if torch.backends.mps.is_available():
        names["mps"] = ""
    return names


def no_device(name: str, reason: str) -> str:
    """The message that a device cannot be used, with those that can.

    Args:
        name: as typed.
        reason: torch's, shown where the device exists.
    """
    here = devices_here()
    listing = ", ".join(f"{device} ({product})" if product else device for device, product in here.items())
    kind = name.partition(":")[0]
    if name in here or (name == kind and kind in {device.partition(":")[0] for device in here}):
        why = f" {reason.rstrip('.')}."
    elif kind != "cuda" or "cuda:0" in here:
        why = ""
    elif torch.version.cuda is None:
        why = " The installed torch is built without CUDA."
    else:
        why = " torch sees no NVIDIA GPU with a driver."
    return f"The device '{name}' cannot be used here; this machine has: {listing}.{why}"


def choose_device(name: str) -> torch.device:
    """The device of this name; `auto` takes a GPU where there is one.

    Raises:
        RequestError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and launched_count() > 1:
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise RequestError(no_device(name, first_line(error))) from error
    if device.type == "meta":  # its tensors hold nothing
        raise RequestError(no_device(name, ""))
    return device


def environment(device: torch.device) -> dict[str, str]:
    """What the run ran on, for the report."""
    import diffusers

    from .version import VERSION

    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{platform.processor() or platform.machine()} CPU"
    )
    threads = torch.get_num_threads()
    return {
        "device": f"{name}, {threads} thread{'s' * (threads != 1)}" if device.type == "cpu" else name,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "dipp_toolkit": VERSION,
        "platform": platform.platform(),
    }


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory of this process on the device, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


Scalars = Mapping[str, float | Tensor]
"""Numbers by name; a tensor holds one number, which has not been transferred yet."""


def read_scalars(scalars: Scalars) -> dict[str, float]:
    """The numbers as Python floats, with one transfer for all tensors: every transfer waits for the accelerator."""
    tensors = {name: scalar for name, scalar in scalars.items() if isinstance(scalar, Tensor)}
    if not tensors:
        return {name: float(scalar) for name, scalar in scalars.items()}
    device = next(iter(tensors.values())).device
    wide = torch.float32 if device.type == "mps" else torch.float64
    stacked = torch.stack([tensor.detach().to(device, wide).reshape(()) for tensor in tensors.values()])
    with awaited(device):
        values = stacked.tolist()
    transferred = dict(zip(tensors, values, strict=True))
    return {name: transferred[name] if name in transferred else float(scalar) for name, scalar in scalars.items()}


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device; an accelerator fetches it by itself, from pinned memory, and the host goes on."""
    if device.type in ("cpu", "mps") or tensor.device.type != "cpu":
        return tensor.to(device)
    if device.type == "cuda" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
