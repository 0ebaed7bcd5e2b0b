"""One server of a reward, as its caller sees it: one connection, bounded responses, pauses after failures."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

import httpx
from torch import Tensor

from ...errors import RunError
from .address import Address
from .wire import MEGABYTE, ROOM, ProtocolError, one_line

CONNECT = 10.0
"""Seconds that a connection may take to come about."""
TRY_LATER = (429, 502, 503, 504)
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0


class Unavailable(Exception):  # noqa: N818 -- not an error yet: another attempt may succeed
    """A server is busy or does not answer; another, or the same one later, may.

    Args:
        sentence: what happened.
        pause: seconds until the next attempt, where the server says so.
        timed_out: whether all the time there was has been spent waiting.
        busy: whether the server said so itself.
    """

    def __init__(self, sentence: str, pause: float = 0.0, timed_out: bool = False, busy: bool = False):
        super().__init__(sentence)
        self.busy = busy
        self.pause = pause
        self.timed_out = timed_out


class Replica:
    """A server.

    Args:
        address: where it is, and what it calls the reward.
        token: presented at every request; None for none.
        timeout: seconds an answer.

    Attributes:
        met: whether it has described its reward.
        identity: the digest of its reward that it sends; empty where it sends none.
        probe: its scores of the images that all servers of a reward score; None where it has none.
    """

    def __init__(self, address: Address, token: str | None, timeout: float):
        self.address = address
        self.timeout = timeout
        self.failures = 0
        self.resting_until = 0.0
        self.differentiable: bool | None = None
        self.met = False
        self.identity = ""
        self.probe: Tensor | None = None
        headers = {"accept-encoding": "identity"} | ({"authorization": f"Bearer {token}"} if token else {})
        # A proxy of the environment is for reaching others; it cannot reach our loopback.
        self._client = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT)),
            trust_env=not address.is_local,
            follow_redirects=False,
        )

    def describe(self) -> Any:
        """What `GET /` says, any JSON.

        Raises:
            Unavailable: the server is busy or does not answer.
            RunError: it answers something else.
        """
        data = self._ask("GET", "/", None, ROOM)
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
        return self._ask("POST", f"/{quote(self.address.reward, safe='')}", data, limit)

    def rest(self, pause: float) -> None:
        """Leave the server alone for a while, longer each time it fails in a row."""
        self.failures += 1
        longest = min(FIRST_PAUSE * 2 ** min(self.failures - 1, 20), LONGEST_PAUSE)
        self.resting_until = time.monotonic() + max(longest, min(pause, LONGEST_PAUSE))

    def wait(self) -> None:
        """Sleep until the server has rested."""
        time.sleep(max(0.0, self.resting_until - time.monotonic()))

    def answered(self) -> None:
        """The server is well."""
        self.failures, self.resting_until = 0, 0.0

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _ask(self, method: str, path: str, data: bytes | None, limit: int) -> bytes:
        deadline = time.monotonic() + self.timeout
        try:
            with self._client.stream(method, self.address.base + path, content=data) as response:
                if response.status_code == httpx.codes.OK:
                    return self._body(response, limit, deadline)
                raise self._refusal(response, self._body(response, ROOM, deadline))
        except httpx.TimeoutException as error:
            timed_out = not isinstance(error, httpx.ConnectTimeout)
            raise Unavailable(self._too_slow(), timed_out=timed_out) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            why = one_line(error, 200).rstrip(".") or type(error).__name__
            raise Unavailable(f"The server {self.address} cannot be reached: {why}.") from None

    def _body(self, response: httpx.Response, limit: int, deadline: float) -> bytes:
        """The answer's bytes as they come: no more of them than there may be, and not after the deadline."""
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise ProtocolError(
                f"The server {self.address} sent a response in the encoding '{one_line(encoding, 40)}'."
            )
        announced = response.headers.get("content-length", "")
        size = int(announced) if announced.isdigit() and len(announced) < 20 else 0
        body = bytearray()
        if size <= limit:
            for chunk in response.iter_raw():
                body += chunk
                size = max(size, len(body))
                if size > limit:
                    break
                if time.monotonic() > deadline:
                    raise Unavailable(self._too_slow(), timed_out=True)
        if size > limit:
            raise ProtocolError(
                f"The server {self.address} sent a response of {size / MEGABYTE:.1f} MB or more; expected "
                f"{limit / MEGABYTE:.1f} at most."
            )
        return bytes(body)

    def _refusal(self, response: httpx.Response, body: bytes) -> Exception:
        """The error that a response other than 200 means."""
        status = response.status_code
        sentence = _sentence(body) or f"status {status}"
        if status in TRY_LATER:
            pause = response.headers.get("retry-after", "")
            seconds = float(pause) if pause.isdigit() and len(pause) < 9 else 0.0
            return Unavailable(f"The server {self.address} says: {sentence}", seconds, busy=True)
        if status in (401, 403):
            return RunError(
                f"The server {self.address} refuses access: {sentence} Put its token in the environment variable "
                "DIPP_REWARD_TOKEN."
            )
        if response.is_redirect:
            return RunError(
                f"The server {self.address} redirects elsewhere (status {status}); name that address instead."
            )
        return RunError(f"The server {self.address} says: {sentence}")

    def _too_slow(self) -> str:
        return f"The server {self.address} did not answer within {self.timeout:g} s."


def _sentence(body: bytes) -> str:
    """The sentence in an error's body, whatever kind of body that is."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    text = content.get("error") if isinstance(content, dict) else body.decode("utf-8", "replace")
    line = one_line(text or "", 600)
    return line if not line or line.endswith((".", "?", "!")) else f"{line}."
