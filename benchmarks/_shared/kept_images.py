"""Images that are made once and kept under what they depend on, so that a run that was stopped goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks._shared.emoji_columns import stored
from dipp_toolkit.utils.atomic import write_tensors
from dipp_toolkit.utils.fingerprint import digest_of


@dataclass(frozen=True)
class KeptImages:
    """A column of images with the 8-bit pixels that it is stored with, and how long it took to make.

    Attributes:
        images: `(prompts, noises, 3, height, width)`, in [0, 1].
        seconds: by the clock.
    """

    images: Tensor
    seconds: float

    @property
    def milliseconds(self) -> float:
        """For each image."""
        return 1000 * self.seconds / self.images.shape[:2].numel()


def kept_images(folder: Path, label: str, depends: Mapping[str, Any], make: Callable[[], Tensor]) -> KeptImages:
    """Read images, or make and keep them.

    Args:
        folder: where they are kept.
        label: what the file's name begins with.
        depends: all that decides the images; anything else here is another file.
        make: makes them, in [0, 1].
    """
    path = folder / f"{label}-{digest_of(depends)[:16]}.safetensors"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        images = make()
        seconds = torch.tensor(time.perf_counter() - started, dtype=torch.float64)
        write_tensors(path, {"images": stored(images).mul(255).round().to(torch.uint8), "seconds": seconds})
    kept = load_file(path)
    return KeptImages(kept["images"].float().div(255), kept["seconds"].item())
