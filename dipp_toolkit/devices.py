"""What this machine can compute on."""

from __future__ import annotations

import torch


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
