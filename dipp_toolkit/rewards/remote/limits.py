"""What a server of rewards takes from a caller: how much, how fast, and how many; the defaults are in `Limits`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass

from .wire import MEGABYTE, ProtocolError, Request


class TooLargeError(Exception):
    """A body is larger than may be."""


class CrowdedError(Exception):
    """All callers together want more memory than there is for them."""


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
        megabytes: of a request's body; 256 MB is a batch of 21 images of 1024 by 1024.
        images: of a request.
        side: pixels, of an image's longer side.
        ratio: longest side by shortest side; a reward that resizes the shorter side must not be given a ribbon.
        characters: of a prompt.
        crowd: megabytes that the bodies of all requests have together which arrive, wait or are being scored.
        timeout: seconds for a request to arrive, and for a reward to score it.
        grace: seconds that a request may take to begin to arrive.
        slowest: megabytes a second, on average, that a body arrives with after that.
        head: seconds that a request's first lines may take.
    """

    megabytes: float = 256.0
    images: int = 256
    side: int = 8192
    ratio: float = 32.0
    characters: int = 20_000
    crowd: float = 1024.0
    timeout: float = 300.0
    grace: float = 10.0
    slowest: float = 1 / 16
    head: float = 10.0

    def check(self, request: Request) -> None:
        """Refuse a request that would cost more than its size says.

        Raises:
            ProtocolError: with what was found and what was expected.
        """
        count, _, height, width = request.images.shape
        if count > self.images:
            raise ProtocolError(f"The request has {count} images; expected {self.images} at most.")
        longest, shortest = max(height, width), min(height, width)
        if longest > self.side or longest > self.ratio * shortest:
            raise ProtocolError(
                f"The request's images have {width} by {height} pixels; expected {self.side} a side at most, and no "
                f"side more than {self.ratio:g} times the other."
            )
        for prompt in request.prompts:
            if len(prompt) > self.characters:
                raise ProtocolError(
                    f"A prompt of the request has {len(prompt)} characters; expected {self.characters} at most."
                )
        # A little room, for finite differences and rounding; what is not finite is outside of any.
        if not bool(((request.images >= -1) & (request.images <= 2)).all()):
            raise ProtocolError("The request's images hold values far from [0, 1] or values that are not finite.")


class Crowd:
    """Bytes that all requests hold together."""

    def __init__(self, most: int):
        self.most = most
        self.held = 0
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Hold so many more.

        Raises:
            CrowdedError: that is too many; they are not held.
        """
        with self._lock:
            if self.held + count > self.most:
                raise CrowdedError
            self.held += count

    def give_back(self, count: int) -> None:
        """Hold so many fewer; from any thread."""
        with self._lock:
            self.held -= count


class Body:
    """A request's body while it arrives, and until it has been scored.

    Args:
        limits: of the server.
        crowd: everybody's bytes.

    Attributes:
        size: bytes of it that are held.
    """

    def __init__(self, limits: Limits, crowd: Crowd):
        self.limits, self.crowd = limits, crowd
        self.size = 0

    async def receive(self, announced: str, chunks: AsyncIterator[bytes]) -> bytes:
        """All of it.

        Args:
            announced: the length that the caller says, or anything else.
            chunks: parts as they come.

        Raises:
            TooLargeError: as soon as that is known.
            CrowdedError: there is no room for more.
            TimeoutError: it comes too late or too slowly.
        """
        limits = self.limits
        most = int(limits.megabytes * MEGABYTE)
        if announced.isdecimal() and (len(announced) > 20 or int(announced) > most):
            raise TooLargeError
        data = bytearray()
        begin = asyncio.get_running_loop().time()
        async with asyncio.timeout_at(begin + min(limits.timeout, limits.grace)) as patience:
            async for chunk in chunks:
                self.crowd.take(len(chunk))
                self.size += len(chunk)
                data += chunk
                if self.size > most:
                    raise TooLargeError
                seconds = limits.grace + self.size / (limits.slowest * MEGABYTE)
                patience.reschedule(begin + min(limits.timeout, seconds))
        return bytes(data)

    def let_go(self) -> None:
        """Nobody needs it any more; from any thread."""
        self.crowd.give_back(self.size)
        self.size = 0
