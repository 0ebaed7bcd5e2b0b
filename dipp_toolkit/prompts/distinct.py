"""How many different texts there are among any number, without holding them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..utils.spill import Rows
from .index import digest_of

PART = 2**16


def count_distinct(prompts: Iterable[str]) -> int:
    """How many different texts there are, to about one in 2^64 of their pairs."""
    rows = Rows(np.uint64)
    for one in prompts:
        rows.append(int.from_bytes(digest_of(one)[:8], "big"))
    digests = rows.array()
    digests.sort()
    parts = (digests[start : start + PART + 1] for start in range(0, len(digests), PART))
    return min(len(digests), 1) + sum(int(np.count_nonzero(part[1:] != part[:-1])) for part in parts)
