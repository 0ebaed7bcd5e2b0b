"""Gradients of an update, which the engine lets go of once the optimiser has followed them."""

from __future__ import annotations

from typing import Any

import torch


def keep_gradients(engine: Any) -> None:
    """The generator's gradients stay where they are after the next update."""
    optimizer: torch.optim.Optimizer = engine.optimizer
    optimizer.zero_grad()
    optimizer.zero_grad = lambda set_to_none=True: None  # type: ignore[method-assign]
