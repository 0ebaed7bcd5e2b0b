"""Files that run a command when a careless reader unpickles them, in every form that weights are published in."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

FORMS = ("zip", "legacy", "pickle", "state dict", "renamed")


class Bomb:
    """Unpickled, it makes the marker file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


def write_bomb(path: Path, marker: Path, form: str = "zip") -> Path:
    """Write a file of weights that makes `marker` when it is unpickled.

    Args:
        path: where to; its folder is made.
        marker: the file that must never appear.
        form: of `FORMS`: torch's zip, torch's format before, a bare pickle, a zip with tensors too, or a state dict
            whose entry is unpickled by a reduce of torch's own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    bomb = Bomb(marker)
    if form == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    elif form == "legacy":
        torch.save({"weight": bomb}, path, _use_new_zipfile_serialization=False)
    elif form == "state dict":
        torch.save({"state_dict": {"layers.0.weight": torch.ones(2, 3), "bomb": bomb}}, path)
    elif form == "renamed":  # what it holds decides, not what it is called
        path.write_bytes(pickle.dumps({"layers.0.weight": bomb}, protocol=2))
    else:
        torch.save(bomb, path)
    return path
