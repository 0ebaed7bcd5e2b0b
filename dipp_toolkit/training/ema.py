"""Exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..distributed.sharded_state import placed
from ..models.weight_sharing import trainable_parameters
from ..utils.step_parts import UPDATES, step_part


class WeightAverage:
    r"""$\bar\theta \leftarrow d_k \bar\theta + (1 - d_k) \theta$, $d_k = \min(d, (1 + k)/(10 + k))$ after k updates.

    The ramp lets a short run's average forget where it started.

    Args:
        network: whose trainable parameters are averaged.
        decay: d in [0, 1); 0 keeps the newest weights.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network, self.decay, self.updates = network, decay, 0
        self.average: list[Tensor] = [parameter.detach().clone() for parameter in trainable_parameters(network)]

    @step_part(UPDATES)
    @torch.no_grad()
    def update(self) -> None:
        """Take in the network's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.average, list[Tensor](trainable_parameters(self.network)), 1 - decay)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network holds the average inside this context, and its own weights again after it."""
        parameters = trainable_parameters(self.network)
        own = [parameter.detach().clone() for parameter in parameters]
        self._copy(self.average)
        try:
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def _copy(self, values: list[Tensor]) -> None:
        for parameter, value in zip(trainable_parameters(self.network), values, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average = [placed(saved, own).to(own) for saved, own in zip(state["average"], self.average, strict=True)]
        self.updates = state["updates"]
