"""Settings that `accelerate launch` gives, by its configuration file or its flags."""

from __future__ import annotations

import os
from typing import Any

MIXED, ACCUMULATION = "ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"


def launcher_settings() -> dict[str, Any]:
    """The settings that the launcher says something about: `precision` and `accumulation`.

    `mixed_precision: no` is accelerate's own default and says nothing; fp8 is no precision of ours.
    """
    found: dict[str, Any] = {}
    mixed = os.environ.get(MIXED, "no").lower()
    if mixed in ("bf16", "fp16"):
        found["precision"] = mixed
    passes = os.environ.get(ACCUMULATION, "1")
    if passes.isdigit() and int(passes) > 1:
        found["accumulation"] = int(passes)
    return found
