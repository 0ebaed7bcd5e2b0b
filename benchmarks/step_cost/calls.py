"""Calls that a step dispatches, sorted by what they make a device do."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = {
    "mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_", "convolution", "convolution_backward",
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward",
}  # fmt: skip
"""Matrix products, convolutions and attention: where a GPU's arithmetic is."""
COPIES = {"_to_copy", "copy_", "clone", "_foreach_copy_"}
"""Casts and copies."""
READS = {"_local_scalar_dense": 1.0, "is_nonzero": True, "equal": True}
"""Calls that give the host a number, which waits for the device, and the answer on a device that computes nothing."""
NO_KERNEL = {
    "promote_types",
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "lift_fresh",
    "set_",
    "resize_",
}
"""Calls that reserve memory or change a description; views are known by their schema."""
VIEWS = {"_unsafe_view", "_reshape_alias", "view"}

CHUNK, BLOCKS = 65536, 320
TENSORS = (110, 64, 48, 36, 30)
"""A multi-tensor kernel of torch's CUDA backend takes that many elements a block and that many blocks and tensors a
launch, by the number of lists (ATen/native/cuda/MultiTensorApply.cuh)."""


def chunks(lists: list[list[torch.Tensor]]) -> int:
    """Launches of a multi-tensor kernel over lists of tensors, as its loop makes them."""
    most, launches, tensors, blocks = TENSORS[min(len(lists), len(TENSORS)) - 1], 0, 0, 0
    for tensor in lists[0]:
        tensors += 1
        left = -(-tensor.numel() // CHUNK)
        while left:
            taken = min(left, BLOCKS - blocks)
            left, blocks = left - taken, blocks + taken
            if blocks == BLOCKS or (tensors == most and not left):
                launches, blocks, tensors = launches + 1, 0, int(bool(left))
    return launches + bool(blocks)


def starts_no_kernel(func: Any) -> bool:
    """Whether a call is a view, or only reserves memory."""
    name = func._overloadpacket.__name__
    if name in NO_KERNEL or name in VIEWS or func.namespace in ("prim", "profiler"):
        return True
    returns = func._schema.returns
    return bool(returns) and all(value.alias_info is not None and not value.alias_info.is_write for value in returns)


class Calls(TorchDispatchMode):
    """Counts calls by kind, above a `FakeTensorMode`, whose tensors hold no numbers: those read are made up.

    Attributes:
        kinds: `products`, `copies`, `optimiser` and `others` start kernels; `reads` are numbers given to the host.
        names: calls that start a kernel, by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kinds: Counter[str] = Counter()
        self.names: Counter[str] = Counter()

    @property
    def launches(self) -> int:
        """Kernels started."""
        return sum(count for kind, count in self.kinds.items() if kind != "reads")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._overloadpacket.__name__
        if name in READS:
            self.kinds["reads"] += 1
            return READS[name]
        if not starts_no_kernel(func):
            many = name.startswith(("_foreach_", "_fused_"))
            count = chunks([list(given) for given in args if isinstance(given, list | tuple) and given]) if many else 1
            kind = "products" if name in PRODUCTS else "copies" if name in COPIES else "optimiser" if many else "others"
            self.kinds[kind] += count
            self.names[name] += count
        if name.startswith("_fused_"):  # has no kernel for tensors without numbers, and changes in place
            return None
        return func(*args, **(kwargs or {}))
