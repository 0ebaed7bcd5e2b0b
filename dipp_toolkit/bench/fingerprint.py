"""Fingerprints: what an image or a score depends on, as a short text that changes when any of it does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..code_digests import software


def digest_of(value: Any) -> str:
    """SHA-256 of a value that JSON can hold, keys in order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def weights_digest(networks: Mapping[str, nn.Module]) -> str:
    """SHA-256 of the names, types, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name in sorted(networks):
        for key, tensor in sorted(networks[name].state_dict().items()):
            if not isinstance(tensor, torch.Tensor):
                continue
            digest.update(f"{name}.{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            values = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def circumstances(device: torch.device, batch: int) -> dict[str, Any]:
    """What the last bits of an image or a score depend on beside what made it: where, with what, and beside how many.

    Args:
        device: where networks run.
        batch: images at a time.
    """
    return {
        "batch": batch,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "kernels": torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else "",
        "threads": torch.get_num_threads() if device.type == "cpu" else 0,
        "matmul": torch.get_float32_matmul_precision(),
        "software": dict(software()),
    }


def networks_in(thing: Any) -> dict[str, nn.Module]:
    """The networks an object is or directly holds."""
    if isinstance(thing, nn.Module):
        return {"": thing}
    return (
        {name: one for name, one in vars(thing).items() if isinstance(one, nn.Module)}
        if hasattr(thing, "__dict__")
        else {}
    )
