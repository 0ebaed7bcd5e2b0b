"""One server of a reward, as its caller sees it: one connection, bounded responses, pauses after failures."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

from torch import Tensor

from .address import TOKEN_VARIABLE, Address
from .connection import Connection, pause_after
from .wire import ROOM, ProtocolError


class Replica:
    """A server.

    Args:
        address: where it is, and what it calls the reward.
        token: presented at every request; None for none.
        timeout: seconds an answer.

    Attributes:
        connection: to it.
        met: whether it has described its reward.
        identity: the digest of its reward that it sends; empty where it sends none.
        probe: its scores of the images that all servers of a reward score; None where it has none.
    """

    def __init__(self, address: Address, token: str | None, timeout: float):
        self.address = address
        self.failures = 0
        self.resting_until = 0.0
        self.differentiable: bool | None = None
        self.met = False
        self.identity = ""
        self.probe: Tensor | None = None
        self.connection = Connection(address.base, address.is_local, token, TOKEN_VARIABLE, timeout)

    def describe(self) -> Any:
        """What `GET /` says, any JSON.

        Raises:
            Unavailable: the server is busy or does not answer.
            RunError: it answers something else.
        """
        data = self.connection.ask("GET", "/", None, ROOM)
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise ProtocolError(
                f"The server {self.address} is not a server of rewards: its response is not JSON."
            ) from None

    def fetch(self, data: bytes, limit: int) -> bytes:
        """The answer to a request for scores, `limit` bytes at most.

        Raises:
            Unavailable: the server is busy or does not answer.
            RunError: it refuses, or answers too much.
        """
        return self.connection.ask("POST", f"/{quote(self.address.reward, safe='')}", data, limit)

    def rest(self, pause: float) -> None:
        """Leave the server alone for a while, longer each time it fails in a row."""
        self.failures += 1
        self.resting_until = time.monotonic() + pause_after(self.failures, pause)

    def wait(self) -> None:
        """Sleep until the server has rested."""
        time.sleep(max(0.0, self.resting_until - time.monotonic()))

    def answered(self) -> None:
        """The server is well."""
        self.failures, self.resting_until = 0, 0.0

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
