"""Fingerprints: what an image or a score depends on, as a short text that changes when any of it does."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn


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


def code_digest(thing: Any) -> str:
    """SHA-256 of the file that defines an object's class; empty for the toolkit's own, and where there is no file."""
    if type(thing).__module__.partition(".")[0] == "dipp_toolkit":
        return ""
    try:
        file = inspect.getsourcefile(type(thing))
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
    except (TypeError, OSError):  # built in, or typed at a prompt
        return ""


def networks_in(thing: Any) -> dict[str, nn.Module]:
    """The networks an object is or directly holds."""
    if isinstance(thing, nn.Module):
        return {"": thing}
    return (
        {name: one for name, one in vars(thing).items() if isinstance(one, nn.Module)}
        if hasattr(thing, "__dict__")
        else {}
    )
