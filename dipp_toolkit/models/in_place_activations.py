"""Activations of feed-forward layers in place, in passes that keep no graph on a CPU.

There, much of what a GELU costs is the new block of memory for its result, the largest of a transformer's. Without a
graph nobody reads again the product that it is taken of. The bits are the same. diffusers has no setting for it, which
is why these lines are ours.
"""

from __future__ import annotations

import torch
from diffusers.models.activations import GELU
from torch import Tensor, nn


class InPlaceGELU(GELU):  # type: ignore[misc]
    """diffusers' product and GELU, the latter in place where no graph is kept on a CPU."""

    def gelu(self, gate: Tensor) -> Tensor:
        if torch.is_grad_enabled() or gate.device.type != "cpu":
            return super().gelu(gate)  # type: ignore[no-any-return]
        return torch.ops.aten.gelu_(gate, approximate=self.approximate)  # type: ignore[no-any-return]


def use_in_place_activations(network: nn.Module) -> None:
    """Let a network's GELUs work in place where that changes nothing. Weights and their names stay as they are.

    Args:
        network: of any kind.
    """
    for module in network.modules():
        if type(module) is GELU:
            module.__class__ = InPlaceGELU
