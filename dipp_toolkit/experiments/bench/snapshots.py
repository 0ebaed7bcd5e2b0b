"""What the monitors look at, taken from a row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...monitoring.snapshot import Snapshot
from .rows import Row


def snapshot_of(row: Row, rewards: Sequence[str]) -> Snapshot:
    """Rewards, diversity and colours of a row, prompt by prompt.

    Args:
        row: with `saturation`, `contrast` and `clipped` among its figures, and `diversity` where it has several seeds.
        rewards: names of the figures that are rewards or judges.
    """

    def values(name: str) -> Tensor:
        return torch.tensor(row.figures[name].per_prompt or (), dtype=torch.float64)

    return Snapshot(
        rewards={name: values(name) for name in rewards},
        diversity=values("diversity") if "diversity" in row.figures else None,
        saturation=values("saturation"),
        contrast=values("contrast"),
        clipped=values("clipped"),
    )
