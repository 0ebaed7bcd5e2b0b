"""Numbers' widths: autocast where a network's own weights are narrower than float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Settings' names of autocast dtypes; None is no autocast."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Settings' names of weight dtypes."""


@contextmanager
def matching_autocast(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Autocast to the dtype of the network's weights where that is half precision and no autocast is on already.

    A frozen network may keep its weights in bfloat16; samples, times and adapters stay float32 around it.
    """
    narrow = next((one.dtype for one in network.parameters() if one.dtype in (torch.bfloat16, torch.float16)), None)
    if narrow is None or torch.is_autocast_enabled(device.type):
        yield
        return
    with torch.autocast(device.type, narrow):
        yield
