"""Settings in layers: what is said later, or closer to the run, goes before what was said below it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...config import over

OPTIONS = ("reward_options", "term_options")
"""Settings that hold options by owner and are laid over each other option by option."""


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`high` over `low`; `reward_options` and `term_options` are merged option by option."""
    merged = over(low, high)
    for kind in OPTIONS:
        if isinstance(low.get(kind), dict) and isinstance(high.get(kind), dict):
            merged[kind] = {**low[kind], **high[kind]}
            for name, values in high[kind].items():
                if isinstance(low[kind].get(name), dict) and isinstance(values, dict):
                    merged[kind][name] = {**low[kind][name], **values}
    return merged
