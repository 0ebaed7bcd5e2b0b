"""Fingerprints: what an image or a score depends on, as a short text that changes when any of it does."""

from __future__ import annotations

import hashlib
import importlib.machinery
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .content_digests import file_digest


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
        {name: module for name, module in vars(thing).items() if isinstance(module, nn.Module)}
        if hasattr(thing, "__dict__")
        else {}
    )


@cache
def software() -> Mapping[str, str]:
    """A digest of the toolkit's sources, plugins that come with it included, and the versions of its libraries."""
    digest = hashlib.sha256()
    for name in sorted(shipped_packages() - {"dipp_cli"}):
        path = source_file(name)
        for source in sorted(path.parent.rglob("*.py")) if path is not None else ():
            digest.update(file_digest(source).encode())
    versions = {name: metadata.version(name) for name in ("diffusers", "transformers", "pillow") if _has(name)}
    return {"dipp-toolkit": digest.hexdigest()[:16], "torch": torch.__version__, **versions}


@cache
def shipped_packages() -> frozenset[str]:
    """Packages that come with the toolkit: its own, and those of its plugins."""
    try:
        listed = metadata.distribution("dipp-toolkit").read_text("top_level.txt") or ""
    except metadata.PackageNotFoundError:
        listed = ""
    beside = (Path(__file__).parents[2] / "plugins").glob("dipp_*/__init__.py")
    return frozenset({"dipp_toolkit", *listed.split(), *(module.parent.name for module in beside)})


def _has(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def source_file(module: str, beside: Path | None = None) -> Path | None:
    """The file of a module, loaded or not, also in a folder that is not on Python's path; None where it has none."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        return Path(file).resolve() if file else None
    parent, _, _ = module.rpartition(".")
    places = [*sys.path, *([str(beside)] if beside is not None else [])]
    if parent:
        package = source_file(parent, beside)
        if package is None or package.name != "__init__.py":
            return None
        places = [str(package.parent)]
    with suppress(ImportError, ValueError, AttributeError):
        spec = importlib.machinery.PathFinder.find_spec(module, places)
        if spec is not None and spec.origin and spec.has_location:
            return Path(spec.origin).resolve()
    return None
