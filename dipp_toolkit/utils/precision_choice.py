"""A run's precision and why it is that one; what decides it, `native_precision`, needs PyTorch, and this does not."""

from __future__ import annotations

from dataclasses import dataclass

AUTO = "auto"


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision of a run's passes.

    Attributes:
        name: `fp32`, `bf16` or `fp16`.
        reason: why it is this one.
        slowdown: how many times as long a layer takes as in float32, where the precision was asked for and that is
            long; 1 elsewhere.
    """

    name: str
    reason: str
    slowdown: float = 1.0

    def __str__(self) -> str:
        return f"precision {self.name}: {self.reason}"
