"""What is written of a step to `metrics.jsonl`."""

from __future__ import annotations

import torch

from .engine import ObjectiveResult


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory of this process on the device, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _mean(value: torch.Tensor) -> float:
    return value.float().mean().item()


def step_metrics(result: ObjectiveResult, assistant_loss: float, divergence: str) -> dict[str, float]:
    """The numbers of one step for `metrics.jsonl`, the machine's measurements aside."""
    row = {"divergence" if name == divergence else name: _mean(one.value) for name, one in result.results.items()}
    row |= {f"{key}/{name}": value for name, one in result.results.items() for key, value in one.details.items()}
    row |= result.details
    row |= {f"grad_norm/{name}": value for name, value in result.norms.items()}
    row |= {f"cosine/{name}": value for name, value in result.cosines.items()}
    return row | {"assistant_loss": assistant_loss}
