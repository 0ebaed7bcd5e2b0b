"""Messages over a socket between two processes of one machine: eight bytes of length, little-endian, then the bytes."""

from __future__ import annotations

import socket
from time import monotonic

from ..remote.wire import ProtocolError

LENGTH, STEP = 8, 2**24


def send_frame(connection: socket.socket, data: bytes, deadline: float | None = None) -> None:
    """Send one message.

    Args:
        connection: a stream socket.
        data: any bytes.
        deadline: on the monotonic clock; None to wait for ever.

    Raises:
        TimeoutError: the deadline has passed.
        OSError: the other side is gone.
    """
    for part in (len(data).to_bytes(LENGTH, "little"), data):
        connection.settimeout(_left(deadline))
        connection.sendall(part)


def receive_frame(connection: socket.socket, limit: int, deadline: float | None = None) -> bytes | None:
    """The next message; None where the other side has closed the socket between two.

    Args:
        connection: a stream socket.
        limit: bytes that a message may have.
        deadline: on the monotonic clock; None to wait for ever.

    Raises:
        ProtocolError: the message is longer than the limit; the socket is of no use afterwards.
        TimeoutError: the deadline has passed.
        OSError: the connection was closed in the middle of a message.
    """
    head = _receive(connection, LENGTH, deadline)
    if not head:
        return None
    length = int.from_bytes(head, "little")
    if length > limit:
        raise ProtocolError(f"A message of {length} bytes was announced; expected {limit} at most.")
    data = _receive(connection, length, deadline)
    if len(head) < LENGTH or len(data) < length:
        raise ConnectionResetError("the connection was closed in the middle of a message")
    return data


def _receive(connection: socket.socket, length: int, deadline: float | None) -> bytes:
    """So many bytes, or fewer where the stream ends. Room is made as they come: a length alone takes no memory."""
    data, got = bytearray(min(length, STEP)), 0
    while got < length:
        if got == len(data):
            data.extend(bytes(min(length - got, max(got, STEP))))
        connection.settimeout(_left(deadline))
        with memoryview(data) as view:
            count = connection.recv_into(view[got:])
        if not count:
            break
        got += count
    return bytes(memoryview(data)[:got])


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    remaining = deadline - monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining
