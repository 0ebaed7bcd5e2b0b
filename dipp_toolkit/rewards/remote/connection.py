"""One connection to somebody else's HTTP server: responses bounded in size and time, no redirect followed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

import httpx

from ...errors import HIDDEN, RunError
from .wire import MEGABYTE, ROOM, ProtocolError, one_line

CONNECT = 10.0
"""Seconds that a connection may take to come about."""
TRY_LATER = (429, 502, 503, 504)
REFUSED = (400, 413, 415, 422)
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0


def pause_after(failures: int, asked: float = 0.0) -> float:
    """Seconds until a server that failed so many times in a row is asked again: twice as long each time.

    Args:
        failures: 1 or more.
        asked: what the server itself asked for.
    """
    longest = min(FIRST_PAUSE * 2 ** min(failures - 1, 20), LONGEST_PAUSE)
    return max(longest, min(asked, LONGEST_PAUSE))


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


class NotFound(RunError):  # noqa: N818 -- one of its kind
    """The server has nothing at this path, or no such model."""


class Refused(RunError):  # noqa: N818 -- one of its kind
    """The server does not take this request: another one it may take."""


class Connection:
    """A server at an address; several threads may ask at once.

    Args:
        base: such as `https://host:8700`, with a path where there is one; no slash at the end.
        is_local: whether it is this machine: a proxy of the environment is for reaching others.
        token: presented at every request; None for none.
        token_variable: the environment variable that it belongs in, for messages.
        timeout: seconds an answer.
        headers: further ones.
    """

    def __init__(
        self,
        base: str,
        is_local: bool,
        token: str | None,
        token_variable: str,
        timeout: float,
        headers: Mapping[str, str] | None = None,
    ):
        self.base = base
        self.token = token
        self.token_variable = token_variable
        self.timeout = timeout
        own = {"accept-encoding": "identity"} | ({"authorization": f"Bearer {token}"} if token else {})
        self._client = httpx.Client(
            headers={**own, **(headers or {})},
            trust_env=not is_local,
            follow_redirects=False,
        )

    def without_token(self, body: bytes) -> bytes:
        """A body that does not quote the token, as some servers do."""
        return body.replace(self.token.encode(), HIDDEN.encode()) if self.token else body

    def close(self) -> None:
        """Close it; requests that are under way end with an error."""
        self._client.close()

    def ask(self, method: str, path: str, data: bytes | None, limit: int) -> bytes:
        """The body of an answer.

        Args:
            method: `"GET"` or `"POST"`.
            path: after the base.
            data: what is sent.
            limit: bytes that an answer has at most.

        Raises:
            Unavailable: the server is busy or does not answer.
            RunError: it refuses, or answers too much.
        """
        deadline = time.monotonic() + self.timeout
        try:
            allowed = httpx.Timeout(self.timeout, connect=min(self.timeout, CONNECT))
            with self._client.stream(method, self.base + path, content=data, timeout=allowed) as response:
                if response.status_code == httpx.codes.OK:
                    return self._body(response, limit, deadline)
                raise self._refusal(response, self._body(response, ROOM, deadline))
        except httpx.TimeoutException as error:
            timed_out = not isinstance(error, httpx.ConnectTimeout)
            raise Unavailable(self._too_slow(), timed_out=timed_out) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            why = one_line(error, 200).rstrip(".") or type(error).__name__
            raise Unavailable(f"The server {self.base} cannot be reached: {why}.") from None

    def _body(self, response: httpx.Response, limit: int, deadline: float) -> bytes:
        """The answer's bytes as they come: no more of them than there may be, and not after the deadline."""
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise ProtocolError(f"The server {self.base} sent a response in the encoding '{one_line(encoding, 40)}'.")
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
                f"The server {self.base} sent a response of {size / MEGABYTE:.1f} MB or more; expected "
                f"{limit / MEGABYTE:.1f} at most."
            )
        return bytes(body)

    def _refusal(self, response: httpx.Response, body: bytes) -> Exception:
        """The error that a response other than 200 means."""
        status = response.status_code
        sentence = _sentence(self.without_token(body)) or f"status {status}."
        if status in TRY_LATER:
            pause = response.headers.get("retry-after", "")
            seconds = float(pause) if pause.isdigit() and len(pause) < 9 else 0.0
            return Unavailable(f"The server {self.base} says: {sentence}", seconds, busy=True)
        if status in (401, 403):
            return RunError(
                f"The server {self.base} refuses access: {sentence} Put its token in the environment variable "
                f"{self.token_variable}."
            )
        if status == httpx.codes.NOT_FOUND:
            return NotFound(f"The server {self.base} says: {sentence}")
        if status in REFUSED:
            return Refused(f"The server {self.base} says: {sentence}")
        if response.is_redirect:
            return RunError(f"The server {self.base} redirects elsewhere (status {status}); name that address instead.")
        return RunError(f"The server {self.base} says: {sentence}")

    def _too_slow(self) -> str:
        return f"The server {self.base} did not answer within {self.timeout:g} s."


def _sentence(body: bytes) -> str:
    """The sentence in an error's body, whatever kind of body that is."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    text = content.get("error") if isinstance(content, dict) else body.decode("utf-8", "replace")
    if isinstance(text, dict):  # as OpenAI's servers have it
        text = text.get("message")
    line = one_line(text or "", 600)
    return line if not line or line.endswith((".", "?", "!")) else f"{line}."
