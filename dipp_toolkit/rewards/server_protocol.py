"""uvicorn's HTTP, with a limit on everything that a caller can make it wait for."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from .server_limits import Limits

MOST_HEAD = 2**14
"""Bytes of a request's first line and headers."""


def patient_protocol(limits: Limits) -> type[H11Protocol]:
    """The protocol of a server with these limits.

    A connection is cut where the first lines of a request take longer than `head`, and where a call as a whole takes
    longer than it may take to arrive, to be scored, and to be taken: uvicorn alone waits for ever in both cases.
    """
    # A call may wait for its turn and then be scored, each no longer than the timeout; so may its answer be taken.
    call_seconds = 4 * limits.timeout + limits.grace

    class PatientProtocol(H11Protocol):
        alarm: asyncio.TimerHandle | None = None
        watched: Any = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.set_alarm(limits.head)

        def data_received(self, data: bytes) -> None:
            if not self.busy and self.alarm is None:  # another request on the same connection begins
                self.set_alarm(limits.head)
            super().data_received(data)
            self.watch()

        def on_response_complete(self) -> None:
            self.clear_alarm()
            super().on_response_complete()
            self.watch()  # the next request may have been here already

        def connection_lost(self, exc: Exception | None) -> None:
            self.clear_alarm()
            super().connection_lost(exc)

        @property
        def busy(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def watch(self) -> None:
            if self.busy and self.watched is not self.cycle:
                self.watched = self.cycle
                self.set_alarm(call_seconds)

        def set_alarm(self, seconds: float) -> None:
            self.clear_alarm()
            self.alarm = self.loop.call_later(seconds, self.transport.abort)

        def clear_alarm(self) -> None:
            if self.alarm is not None:
                self.alarm.cancel()
                self.alarm = None

    return PatientProtocol
