"""Python's search for garbage in cycles, which stops for what makes many objects and few cycles."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Inside, garbage in cycles stays. Imports of large libraries and dry runs make millions of small objects, and
    looking through them again and again is a fifth of their time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
