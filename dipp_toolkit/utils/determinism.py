"""The same bits from the same seed on a GPU, too: kernels that add up in an order of their own are left aside."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic_kernels(device: torch.device, wanted: bool = True) -> Iterator[None]:
    """Inside, operations on a GPU take their deterministic kernels, where there are any; on a CPU they do anyway.

    Where torch has none for an operation (the backward pass of an antialiased resize, say), it is run as it is: two
    runs of a training that uses one agree in the first digits only.

    Args:
        device: where the training runs.
        wanted: without it nothing changes.
    """
    if not wanted or device.type != "cuda":
        yield
        return
    os.environ.setdefault(WORKSPACE, ":4096:8")  # read when cuBLAS is first used
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    chosen: Any = torch.utils.deterministic
    filling, tuned = chosen.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    chosen.fill_uninitialized_memory = False  # costs a pass over every new tensor
    torch.backends.cudnn.benchmark = False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        chosen.fill_uninitialized_memory = filling
        torch.backends.cudnn.benchmark = tuned
