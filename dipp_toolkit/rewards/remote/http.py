"""uvicorn's HTTP, with a limit on everything that a caller can make it wait for."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .limits import Limits

MOST_HEAD = 2**14
"""Bytes of a request's first line and headers."""


class BoundedConnection(h11.Connection):
    """Refuses heads that are too long. h11's own limit is for those that come in pieces."""

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, (h11.Request, h11.EndOfMessage)):  # the latter may bring headers too
            size = sum(len(name) + len(value) + len(b": \r\n") for name, value in event.headers)
            size += len(event.target) if isinstance(event, h11.Request) else 0
            if size > MOST_HEAD:
                raise h11.RemoteProtocolError(f"expected {MOST_HEAD} bytes of headers at most", error_status_hint=431)
        return event


def patient_protocol(limits: Limits) -> type[H11Protocol]:
    """The protocol of a server with these limits.

    A connection is cut where the first lines of a request take longer than `head`, where a call as a whole takes longer
    than it may take to arrive, to wait and to be scored, and where its answer is not taken within `timeout`: uvicorn
    alone waits for ever.
    """
    call_seconds = 3 * limits.timeout + limits.grace

    class PatientProtocol(H11Protocol):
        alarm: asyncio.TimerHandle | None = None
        awaited = ""
        watched: Any = None

        def __init__(self, *given: Any, **named: Any):
            super().__init__(*given, **named)
            self.conn = BoundedConnection(h11.SERVER, MOST_HEAD)

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.wait_for("head", limits.head)

        def data_received(self, data: bytes) -> None:
            if not self.busy and self.awaited != "head":  # another request on the same connection begins
                self.wait_for("head", limits.head)
            super().data_received(data)
            self.watch()

        def on_response_complete(self) -> None:
            self.wait_for("answer", limits.timeout)  # it may lie in our memory yet
            super().on_response_complete()
            self.watch()  # the next request may have been here already

        def connection_lost(self, exc: Exception | None) -> None:
            if self.alarm is not None:
                self.alarm.cancel()
            super().connection_lost(exc)

        @property
        def busy(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def watch(self) -> None:
            if self.busy and self.watched is not self.cycle:
                self.watched = self.cycle
                self.wait_for("call", call_seconds)

        def wait_for(self, what: str, seconds: float) -> None:
            if self.alarm is not None:
                self.alarm.cancel()
            self.awaited, self.alarm = what, self.loop.call_later(seconds, self.give_up)

        def give_up(self) -> None:
            if self.awaited != "answer" or self.transport.get_write_buffer_size():
                self.transport.abort()

    return PatientProtocol
