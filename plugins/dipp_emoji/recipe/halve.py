"""Copy a folder in the Hugging Face layout, its safetensors in half precision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def copy_in_half(source: Path, target: Path) -> int:
    """Replace `target` by a copy of `source` whose float32 tensors are float16; returns the bytes written.

    The configurations stay as they are, so that a loader gives float32 networks again; only the paths they were
    loaded from are left out.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    for path in target.rglob("*.safetensors"):
        tensors = {
            name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in load_file(path).items()
        }
        save_file(tensors, path, metadata={"format": "pt"})
    for path in target.rglob("config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
