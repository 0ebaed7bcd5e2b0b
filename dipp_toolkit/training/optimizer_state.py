"""An optimiser's saved state put back, also where its parameters are sharded otherwise than they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..distributed.sharded_state import Pieces, placed


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Take over what `optimizer.state_dict()` gave.

    Args:
        optimizer: over the same parameters, in the same order.
        state: tensors of a parameter's shape go where the parameter is; others, such as counts, as they are.
    """
    parameters = [one for group in optimizer.param_groups for one in group["params"]]

    def put(value: Any, like: Tensor) -> Any:
        if isinstance(value, Pieces | Tensor) and tuple(value.shape) == tuple(like.shape) and like.ndim:
            return placed(value, like)
        return value

    kept = {
        index: {name: put(value, parameters[index]) for name, value in one.items()}
        for index, one in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": kept})
