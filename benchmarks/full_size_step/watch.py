"""Parts of a step at full size, as the plan cuts it, and resident memory by part on a CPU."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from dipp_toolkit.experiments.profile.parts import PartTimer
from dipp_toolkit.utils.step_parts import (
    ASSISTANT,
    ASSISTANT_READ,
    BACKWARD,
    DECODER,
    GENERATOR,
    OBJECTIVE,
    REFERENCE,
    REST,
    REWARD,
    SAMPLES,
    UPDATES,
)

REWARDING = "reward (decode, HPSv2, backward)"
PIECES = {
    SAMPLES: "assistant update", ASSISTANT: "assistant update", GENERATOR: "generator", BACKWARD: "generator",
    REFERENCE: "divergence", ASSISTANT_READ: "divergence", DECODER: REWARDING, REWARD: REWARDING,
    UPDATES: "optimisers and average", OBJECTIVE: "rest", REST: "rest",
}  # fmt: skip
"""The plan's piece that each part of a step belongs to."""


def by_piece(parts: Mapping[str, float], *, largest: bool = False) -> dict[str, float]:
    """Numbers of parts as those of pieces: their sum, or the largest of them."""
    pieces: dict[str, float] = {}
    for part, number in parts.items():
        piece = PIECES[REWARD if part.startswith(REWARD) else part]
        before = pieces.get(piece, 0.0)
        pieces[piece] = max(before, number) if largest else before + number
    return pieces


def resident() -> int:
    """This process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watch(PartTimer):
    """A part's peak on a CPU is the most resident memory, sampled every few milliseconds: what a process takes is what
    the plan is held against there, and not what its tensors do."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        if device.type != "cuda":
            threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while True:
            for part in self._open[-1:]:
                self.boundary(part)
            time.sleep(0.005)

    def boundary(self, part: str) -> None:
        """Note the memory of the part that ends, or that goes on."""
        if self.device.type == "cuda":
            super().boundary(part)
        elif part:
            self.peaks[part] = max(self.peaks.get(part, 0), resident())
