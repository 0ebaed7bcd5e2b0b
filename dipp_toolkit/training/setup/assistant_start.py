"""Where a run's assistant starts, in words."""

from __future__ import annotations

from ...config import TrainConfig
from ..step_metrics import divergence_of
from .assembly import Assembled

WAY_OUT = "--set assistant_warmup=500, say, teaches it before the first step"


def assistant_start(config: TrainConfig, parts: Assembled) -> str:
    """What the assistant knows of the generator before its first update; empty where no term looks at it."""
    if divergence_of(parts.engine.terms) is None:
        return ""
    if parts.assistant_is_trained:
        return "saved with the generator"
    if config.assistant_warmup:
        return f"starts as the reference; {config.assistant_warmup} updates before the first step"
    return "starts as the reference"


def unready_note(config: TrainConfig, parts: Assembled) -> str:
    """A sentence where the assistant is the reference at the first step, with the way out; empty elsewhere."""
    if divergence_of(parts.engine.terms) is None or parts.assistant_is_trained or config.assistant_warmup:
        return ""
    if not config.assistant_rounds:
        return (
            "The assistant is the reference and learns nothing (assistant_rounds=0), so nothing holds the generator "
            f"near the reference: --set assistant_rounds=1, and {WAY_OUT}."
        )
    return (
        "The assistant starts as the reference, so the divergence sees no difference at first, and then a wrong one "
        f"until the assistant knows what the generator makes: {WAY_OUT}."
    )
