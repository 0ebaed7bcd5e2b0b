"""Signals that ask a run to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ASKING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, a scheduler, and a terminal that is closed; where the system has them."""


class StopNow(KeyboardInterrupt):
    """A signal ended the work where it was. No `except Exception` of anybody's code on the way swallows it."""


class StopRequest:
    """Notes SIGINT, SIGTERM and SIGHUP, so that the step under way is finished and saved; a second SIGINT ends it.

    Attributes:
        signal: the first that came.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A scheduler and a launcher may each send a SIGTERM of their own; who presses Ctrl-C twice means it.
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        first, self.signal = self.signal is None, self.signal or signal.Signals(number)
        if first and self._at_once:
            raise StopNow

    @contextmanager
    def noted(self) -> Iterator[StopRequest]:
        """Signals are noted inside this context, where Python allows it (the main thread).

        A SIGHUP that is ignored, as under nohup, stays ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        numbers = [getattr(signal, name) for name in ASKING if hasattr(signal, name)]
        ignored = [one for one in numbers if one != signal.SIGINT and signal.getsignal(one) is signal.SIG_IGN]
        before = {one: signal.signal(one, self._note) for one in numbers if one not in ignored}
        try:
            yield self
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    @contextmanager
    def at_once(self, wanted: bool = True) -> Iterator[None]:
        """Signals end the work inside this context where it is; one that was noted before does so at its beginning.

        For work that loses nothing: what is done is saved, and what is not can be done again.

        Args:
            wanted: False where signals are to be noted here as well, because other processes share the work.

        Raises:
            StopNow: a signal came.
        """
        before, self._at_once = self._at_once, wanted
        try:
            if wanted and self.signal is not None:
                raise StopNow
            yield
        finally:
            self._at_once = before
