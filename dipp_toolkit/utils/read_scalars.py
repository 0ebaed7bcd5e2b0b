"""Numbers read off an accelerator: all at once, because every reading waits until it has done all it was given."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Numbers = Mapping[str, float | Tensor]
"""Numbers by name; a tensor holds one, and has not been read yet."""


def read(numbers: Mapping[str, float | Tensor]) -> dict[str, float]:
    """The numbers as numbers: one transfer for all that are tensors."""
    waiting = {name: one for name, one in numbers.items() if isinstance(one, Tensor)}
    if not waiting:
        return {name: float(one) for name, one in numbers.items()}
    first = next(iter(waiting.values()))
    wide = torch.float32 if first.device.type == "mps" else torch.float64
    told = torch.stack([one.detach().to(first.device, wide).reshape(()) for one in waiting.values()]).tolist()
    known = dict(zip(waiting, told, strict=True))
    return {name: known[name] if name in known else float(numbers[name]) for name in numbers}
