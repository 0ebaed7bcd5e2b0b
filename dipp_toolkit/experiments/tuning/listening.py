"""Who hears of a tuning's work before and after the distillation, which tells its own listeners."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Listener(Protocol):
    """Told of work and of what somebody should know."""

    def begin(self, what: str, total: int) -> None:
        """A piece of work of `total` updates or images begins."""

    def advance(self, count: int) -> None:
        """So many of them are done."""

    def note(self, sentence: str) -> None:
        """Something that somebody should know."""
