"""What a device computes at most: published where it is, measured on one matrix product elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ...planning.machines import GPUS
from .parts import wait

SIDE, PRODUCTS = 1024, 8
"""Of the matrices that are multiplied, and how often; the fastest product counts."""


@dataclass(frozen=True)
class PeakRate:
    """A device's peak.

    Attributes:
        rate: floating-point operations a second, a multiply and an add as two.
        source: where it is from, as part of a sentence.
    """

    rate: float
    source: str


def peak_rate(device: torch.device, precision: torch.dtype | None) -> PeakRate:
    """The peak of a device in a precision.

    Args:
        device: of the run.
        precision: autocast dtype of its passes; None for float32.
    """
    name = "float32" if precision is None else str(precision).removeprefix("torch.")
    if device.type == "cuda":
        product = torch.cuda.get_device_name(device)
        for known, (half, full, _) in GPUS.items():
            if known.split()[-1] in product.replace("-", " ").split():
                return PeakRate((full if precision is None else half) * 1e12, f"published, dense, {name}")
    rate = _measured(device, precision or torch.float32)
    count = torch.get_num_threads()
    threads = f", {count} thread{'s' * (count != 1)}" if device.type == "cpu" else ""
    return PeakRate(rate, f"measured: a {name} product of {SIDE} x {SIDE} matrices{threads}")


def _measured(device: torch.device, dtype: torch.dtype) -> float:
    matrix = torch.full((SIDE, SIDE), 0.01, device=device, dtype=dtype)
    fastest = float("inf")
    with torch.no_grad():
        for _ in range(PRODUCTS):
            started = time.perf_counter()
            torch.mm(matrix, matrix)
            wait(device)
            fastest = min(fastest, time.perf_counter() - started)
    return 2 * SIDE**3 / max(fastest, 1e-9)
