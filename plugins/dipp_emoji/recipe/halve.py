"""Copy a folder in the Hugging Face layout, its safetensors in half precision."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def copy_in_half(source: Path, target: Path) -> int:
    """Replace `target` by a copy of `source` whose float32 tensors are float16; returns the bytes written.

    The configurations stay as they are, so that a loader gives float32 networks again.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    for path in target.rglob("*.safetensors"):
        tensors = {
            name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in load_file(path).items()
        }
        save_file(tensors, path, metadata={"format": "pt"})
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
