"""Signals that ask a run to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Notes SIGINT and SIGTERM, so that the step under way is finished and saved; a second SIGINT does not wait."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A scheduler and a launcher may each send a SIGTERM of their own; who presses Ctrl-C twice means it.
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or signal.Signals(number)

    @contextmanager
    def noted(self) -> Iterator[StopRequest]:
        """Signals are noted inside this context, where Python allows it (the main thread)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {one: signal.signal(one, self._note) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
