"""Announces, after the first steps of a long run, how long it will take and what would make it shorter."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from dipp_toolkit.events import RunStartEvent, StepEvent

LONG = 5 * 60.0
"""Seconds left from which on a run is long."""
STEPS = 5
PATIENCE = 60.0
"""Seconds after which fewer steps have to do for the estimate."""


def in_words(seconds: float) -> str:
    """Minutes, hours or days, roughly."""
    minutes = seconds / 60
    if minutes < 90:
        return f"about {round(minutes)} minute{'s' * (round(minutes) != 1)}"
    hours = minutes / 60
    return f"about {hours:.1f} hours" if hours < 36 else f"about {hours / 24:.1f} days"


class LongRun:
    """Watches the first steps of a run.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic):
        self._clock = clock
        self._start: RunStartEvent | None = None
        self._first: tuple[int, float] | None = None

    def begins(self, event: RunStartEvent) -> None:
        """A run begins, or goes on."""
        self._start, self._first = event, None

    def after(self, event: StepEvent) -> str:
        """The notice, once, where the run will take long; else nothing.

        The first step is not counted: it pays for what is made once.
        """
        if self._start is None:
            return ""
        now = self._clock()
        if self._first is None:
            self._first = event.step, now
            return ""
        step, since = self._first
        if event.step - step < STEPS and now - since < PATIENCE:
            return ""
        start, self._start = self._start, None
        left = (now - since) / (event.step - step) * (event.steps - event.step)
        return f"{in_words(left)}; {_shorter(start)}" if left >= LONG else ""


def _shorter(start: RunStartEvent) -> str:
    """What would make a run shorter, what helps most first."""
    ways = ["fewer steps with --steps"]
    if start.step:  # a run that goes on keeps everything else
        return ways[0]
    if start.precision is not None and start.precision.slowdown > 1:
        ways.insert(0, f"faster passes with --precision auto, as this CPU is slow at {start.precision.name}")
    if start.config.batch_size > 1:
        ways.append("smaller steps with --batch-size")
    return ", ".join(ways)
