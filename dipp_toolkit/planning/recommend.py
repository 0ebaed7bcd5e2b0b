"""Settings that fit a memory: the least that has to be given up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..config import TrainConfig
from .estimate import MARGIN, Plan, make_plan, with_precision

STEPS: tuple[dict[str, Any], ...] = (
    {"decode_checkpointing": True},
    {"gradient_checkpointing": True},
    {"recompute_generator": True},
    {"precision": "bf16", "frozen_precision": "bf16"},
    {"reward_batch": 1},
    {"mode": "lora"},
)
"""What is given up, in this order: first time, then digits of frozen weights, then the freedom of all weights."""


def recommend(
    config: TrainConfig, memory: int, plan_of: Callable[[TrainConfig], Plan] = make_plan
) -> tuple[Plan | None, dict[str, Any]]:
    """The first settings along `STEPS`, then with ever smaller batches, whose plan fits with `MARGIN` to spare.

    Args:
        config: resolved settings to begin with.
        memory: bytes.
        plan_of: makes the plans.

    Returns:
        The plan that fits, None where nothing does, and the settings that differ from `config`.
    """
    config = with_precision(config)
    changed: dict[str, Any] = {}
    for step in ({}, *STEPS):
        new = {name: value for name, value in step.items() if getattr(config, name) != value}
        if step and not new:
            continue
        changed |= new
        plan = plan_of(config.model_copy(update=changed))
        if plan.peak * (1 + MARGIN) <= memory:
            return plan, changed
    batch = config.batch_size
    while batch > 1:
        batch //= 2
        changed["batch_size"] = batch
        plan = plan_of(config.model_copy(update=changed))
        if plan.peak * (1 + MARGIN) <= memory:
            return plan, changed
    return None, changed
