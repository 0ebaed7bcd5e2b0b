"""Numbers' widths: autocast of network passes, and where a network's own weights are narrower than float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Settings' names of autocast dtypes; None is no autocast."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Settings' names of weight dtypes."""


def pass_autocast(device_type: str, precision: torch.dtype | None) -> torch.autocast:
    """Autocast of network passes whose narrow copies of the weights live no longer than the graph that needs them.

    torch's cache would keep them until the outermost context ends: a network's whole weights, held while the rewards
    run. A pass reads each weight once, so there is nothing to gain from it.

    Args:
        device_type: `"cuda"`, `"cpu"`, ...
        precision: the dtype, None for no autocast.
    """
    return torch.autocast(device_type, precision or torch.bfloat16, enabled=precision is not None, cache_enabled=False)


def full_precision(device: torch.device) -> torch.autocast:
    """Inside, passes on this device have the dtypes of their own tensors, whatever autocast is on around it.

    A gradient belongs in here too: a backward pass under autocast narrows the products of a forward pass that was not.
    """
    return torch.autocast(device.type, enabled=False)


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision as float32 and anything wider as it is, with its graph: gradients flow back in the old dtype."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def narrowed_to(device: torch.device) -> torch.dtype | None:
    """The dtype that autocast narrows passes on this device to at the moment; None where it is off."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


@contextmanager
def matching_autocast(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Autocast to the dtype of the network's weights where that is half precision and no autocast is on already.

    A frozen network may keep its weights in bfloat16; samples, times and adapters stay float32 around it.
    """
    narrow = next((one.dtype for one in network.parameters() if one.dtype in (torch.bfloat16, torch.float16)), None)
    if narrow is None or torch.is_autocast_enabled(device.type):
        yield
        return
    with pass_autocast(device.type, narrow):
        yield
