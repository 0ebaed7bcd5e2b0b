"""What this machine can compute on."""

from __future__ import annotations

import os
import platform

import torch

from ..distributed import launched_count
from ..errors import RequestError, first_line


def devices_here() -> dict[str, str]:
    """The devices by the names that `--device` takes, each with what it is called; empty where it is called nothing."""
    found = {"cpu": ""}
    for index in range(torch.cuda.device_count()):
        found[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    if torch.backends.mps.is_available():
        found["mps"] = ""
    return found


def no_device(name: str, reason: str) -> str:
    """That a device cannot be used, and which can.

    Args:
        name: as typed.
        reason: torch's, told where there is such a device.
    """
    here = devices_here()
    listing = ", ".join(f"{one} ({called})" if called else one for one, called in here.items())
    kind = name.partition(":")[0]
    if name in here or (name == kind and kind in {one.partition(":")[0] for one in here}):
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
