"""Rewards behind HTTP: `GET /` says which there are, `POST /<name>` scores a batch. Nothing else is there.

Bodies are the messages of `protocol`. Every error is a JSON object `{"error": "a sentence"}` with a status that says
whose it is: 400 the message, 401 the token, 404 the name, 408 a body that does not come, 413 one that is too large,
500 the reward, 503 too many callers, 504 a reward that takes too long.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..errors import RequestError, RunError
from ..naming import unknown_name
from ..roles import Reward
from .answering import describe_error, score
from .protocol import MEGABYTE, VERSION, ProtocolError, decode, decode_request, encode_scores
from .server_queue import OneAtATime

BINARY = "application/octet-stream"
UNREAD = (401, 404, 405, 408, 413)
"""Refusals that come before the body has been read."""


@dataclass
class ServedReward:
    """A reward, where it computes, and the one thread that may call it."""

    name: str
    reward: Reward
    device: str = "cpu"
    queue: OneAtATime = field(default_factory=OneAtATime)

    def score(self, data: bytes) -> bytes:
        """An encoded reply to an encoded request.

        Raises:
            HTTPException: 400 or 500, with a sentence.
        """
        try:
            request = decode_request(decode(data))
            return encode_scores(*score(self.name, self.reward, request, self.device))
        except (ProtocolError, RequestError) as error:
            raise HTTPException(400, str(error)) from error
        except RunError as error:
            raise HTTPException(500, str(error)) from error
        except Exception as error:
            raise HTTPException(500, f"The reward '{self.name}' failed with {describe_error(error)}.") from error


@dataclass
class RewardService:
    """What the server answers.

    Attributes:
        rewards: by the name that stands in the address.
        token: what callers must present; None where nobody must.
        max_bytes: of a request's body.
        timeout: seconds for a body to come, and for a reward to score it.
    """

    rewards: Mapping[str, ServedReward]
    token: str | None
    max_bytes: int
    timeout: float

    async def describe(self, request: Request) -> Response:
        """`GET /`: the protocol's version and the rewards."""
        self._check_token(request)
        rewards = {
            name: {"differentiable": getattr(one.reward, "differentiable", None), "device": one.device}
            for name, one in self.rewards.items()
        }
        return JSONResponse({"protocol": VERSION, "rewards": rewards})

    async def score(self, request: Request) -> Response:
        """`POST /<name>`: scores of a batch. Nobody's body is read who has no token or names no reward."""
        self._check_token(request)
        name = request.path_params["name"]
        served = self.rewards.get(name)
        if served is None:
            raise HTTPException(404, unknown_name("reward", name, self.rewards))
        try:
            data = await asyncio.wait_for(self._body(request), self.timeout)
        except TimeoutError:
            raise HTTPException(408, f"The request did not arrive within {self.timeout:g} s.") from None
        call = served.queue.submit(lambda: served.score(data))
        try:
            reply = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(call)), self.timeout)
        except TimeoutError:
            if call.cancel():
                raise HTTPException(503, f"The reward '{name}' was busy for {self.timeout:g} s.") from None
            raise HTTPException(504, f"The reward '{name}' took longer than {self.timeout:g} s.") from None
        return Response(reply, media_type=BINARY)

    async def _body(self, request: Request) -> bytes:
        """The request's body, refused as soon as it is known to be too large.

        Raises:
            HTTPException: 413.
        """
        too_large = HTTPException(
            413, f"The request has more than {self.max_bytes / MEGABYTE:.3g} MB; send fewer images at a time."
        )
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > self.max_bytes:
            raise too_large
        data = bytearray()
        try:
            async for chunk in request.stream():
                data += chunk
                if len(data) > self.max_bytes:
                    raise too_large
        except ClientDisconnect:
            raise HTTPException(400, "The caller went away.") from None
        return bytes(data)

    def _check_token(self, request: Request) -> None:
        """Refuse who has not got the token.

        Raises:
            HTTPException: 401.
        """
        if self.token is None:
            return
        scheme, _, found = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(found.strip().encode(), self.token.encode()):
            reason = "wrong token" if found else "no token"
            raise HTTPException(401, f"Access refused: {reason}.", {"WWW-Authenticate": "Bearer"})


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code in UNREAD:  # what is left of the body is not waited for
        headers["connection"] = "close"
    return JSONResponse({"error": error.detail}, error.status_code, headers=headers)


async def _fail(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"The server failed with {describe_error(error)}."}, 500)


def build_server(
    rewards: Mapping[str, Reward],
    *,
    token: str | None = None,
    max_megabytes: float = 256.0,
    timeout: float = 300.0,
    device: torch.device | str = "cpu",
) -> Starlette:
    """The ASGI application that serves these rewards.

    Args:
        rewards: by the name that will stand in the address.
        token: what callers must present; None where nobody must.
        max_megabytes: of a request's body; 256 MB is a batch of 21 images of 1024 by 1024.
        timeout: seconds for a body to come, and for a reward to score it.
        device: where the rewards compute.
    """
    served = {name: ServedReward(name, reward, str(device)) for name, reward in rewards.items()}
    service = RewardService(served, token, int(max_megabytes * MEGABYTE), timeout)
    handlers: Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        HTTPException: _refuse,
        Exception: _fail,
    }
    routes = [Route("/", service.describe), Route("/{name}", service.score, methods=["POST"])]
    return Starlette(routes=routes, exception_handlers=handlers)
