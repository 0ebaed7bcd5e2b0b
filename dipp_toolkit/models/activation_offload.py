"""What a pass keeps for its backward pass, in the host's memory in place of the device's."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

SMALLEST = 2**18
"""Bytes from which a tensor is moved: below, starting the two copies takes longer than they do."""


def is_moved(tensor: Tensor) -> bool:
    """Whether a tensor that a graph keeps is moved: weights, which stay on the device anyway, and small ones are not.

    Args:
        tensor: as autograd gives it to a hook; of a weight that is transposed, its view.
    """
    whole = tensor if tensor._base is None else tensor._base
    return not isinstance(whole, nn.Parameter) and tensor.nbytes >= SMALLEST


@dataclass(frozen=True)
class ActivationOffload:
    """Moves what a graph keeps to the host as the forward pass goes, and back as the backward pass asks for it.

    Numbers and their order in memory stay, so that gradients have the bits they had. Neither copy makes the host wait:
    both stand in the device's queue. It is ours because torch's `save_on_cpu` copies every tensor that is saved, the
    weights of each layer among them, and gives all of them back contiguous, for which kernels may round otherwise.

    Attributes:
        active: whether to.
    """

    active: bool = False

    @classmethod
    def chosen(cls, wanted: bool, device: torch.device) -> ActivationOffload:
        """The choice for a device; where its memory is the host's own there is nothing to move.

        Args:
            wanted: whether the settings ask for it.
            device: where passes run.
        """
        return cls(wanted and device.type not in ("cpu", "mps"))

    def __call__(self) -> AbstractContextManager[object]:
        """Around a forward pass with a graph."""
        return saved_tensors_hooks(_to_host, _to_device) if self.active else nullcontext()


Kept = tuple[torch.device, Tensor]
"""Where a tensor was, and the tensor: the same, or the host's copy."""


def _to_host(tensor: Tensor) -> Kept:
    if not is_moved(tensor):
        return tensor.device, tensor
    pinned = tensor.device.type == "cuda"
    copy = torch.empty_like(tensor, device="cpu", pin_memory=pinned)
    return tensor.device, copy.copy_(tensor, non_blocking=True)


def _to_device(kept: Kept) -> Tensor:
    device, tensor = kept
    return tensor.to(device, non_blocking=True)
