"""Rewards behind HTTP: `GET /` says which there are, `POST /<name>` scores a batch. There are no other routes.

Bodies are the messages of `protocol`. Every error is a JSON object `{"error": "a sentence"}` with a status that says
whose it is: 400 the message, 401 the token, 403 a stranger's page in a browser here, 404 the name, 408 a body that does
not come or comes too slowly, 413 one that is too large, 500 the reward, 503 too many callers, 504 a reward that takes
too long.
"""

from __future__ import annotations

import asyncio
import hmac
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import torch
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...errors import RequestError, RunError
from ...protocols import Reward
from ...utils.exception_text import raised
from ...utils.messages import unknown_name
from ..code_digests import identity_of
from ..scores import failure
from .address import is_loopback
from .answering import score
from .limits import Body, Crowd, CrowdedError, Limits, TooLargeError
from .wire import MEGABYTE, VERSION, ProtocolError, decode, decode_request, encode_scores

BINARY = "application/octet-stream"
UNREAD = (400, 401, 403, 404, 405, 408, 413, 503)
"""Refusals that may come before the body has been read."""


class OneAtATime:
    """A thread that makes the calls it is given, in order; it never keeps the process from ending.

    A call that has begun cannot be stopped. One that waits can be: cancel its future.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Queue a call; its value, or what it raises, is in the future."""
        future: Future[Any] = Future()
        self._calls.put((future, call))
        return future

    def _work(self) -> None:
        while True:
            future, call = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except Exception as error:  # noqa: BLE001 -- it is raised where the result is asked for
                future.set_exception(error)
            except BaseException as error:  # noqa: BLE001 -- a reward's sys.exit() is not to end the server
                future.set_exception(RuntimeError(f"the reward tried to end the program: {error!r}"))
            del future, call  # images of the last call are not kept while there is no next


@dataclass
class ServedReward:
    """A reward, its digest, its device, its limits, and the only thread that may call it."""

    name: str
    reward: Reward
    identity: str = ""
    device: str = "cpu"
    limits: Limits = field(default_factory=Limits)
    queue: OneAtATime = field(default_factory=OneAtATime)

    def score(self, data: bytes) -> bytes:
        """An encoded reply to an encoded request.

        Raises:
            HTTPException: 400 or 500, with a sentence.
        """
        try:
            request = decode_request(decode(data))
            self.limits.check(request)
            return encode_scores(*score(self.name, self.reward, request, self.device), self.identity)
        except (ProtocolError, RequestError) as error:
            raise HTTPException(400, str(error)) from error
        except RunError as error:
            raise HTTPException(500, str(error)) from error
        except Exception as error:
            raise HTTPException(500, str(failure(self.name, error, place=False))) from error


@dataclass
class RewardService:
    """What the server answers.

    Attributes:
        rewards: by the name that stands in the address.
        token: what callers must present; None where nobody must.
        limits: what it takes from callers.
        crowd: what all callers hold together.
    """

    rewards: Mapping[str, ServedReward]
    token: str | None
    limits: Limits
    crowd: Crowd

    async def describe(self, request: Request) -> Response:
        """`GET /`: the protocol's version and the rewards."""
        self._check_caller(request)
        rewards = {
            name: {
                "differentiable": getattr(served.reward, "differentiable", None),
                "device": served.device,
                "identity": served.identity,
            }
            for name, served in self.rewards.items()
        }
        return JSONResponse({"protocol": VERSION, "rewards": rewards})

    async def score(self, request: Request) -> Response:
        """`POST /<name>`: scores of a batch. Nobody's body is read who has no token or names no reward."""
        self._check_caller(request)
        name = request.path_params["name"]
        served = self.rewards.get(name)
        if served is None:
            raise HTTPException(404, unknown_name("reward", name, self.rewards))
        body = Body(self.limits, self.crowd)
        try:
            data = await self._receive(body, request)
        except BaseException:
            body.let_go()
            raise
        call = served.queue.submit(lambda: served.score(data))
        call.add_done_callback(lambda _: body.let_go())
        seconds = self.limits.timeout
        try:
            reply = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(call)), seconds)
        except TimeoutError:
            if call.cancel():
                raise HTTPException(503, f"The reward '{name}' was busy for {seconds:g} s.") from None
            raise HTTPException(504, f"The reward '{name}' took longer than {seconds:g} s.") from None
        return Response(reply, media_type=BINARY)

    async def _receive(self, body: Body, request: Request) -> bytes:
        """The request's body.

        Raises:
            HTTPException: 400, 408, 413 or 503.
        """
        try:
            return await body.receive(request.headers.get("content-length", ""), request.stream())
        except TooLargeError:
            most = f"{int(self.limits.megabytes * MEGABYTE) / MEGABYTE:.3g} MB"
            raise HTTPException(413, f"The request has more than {most}; send fewer images at a time.") from None
        except CrowdedError:
            raise HTTPException(
                503, "Waiting requests take all the memory that is reserved for them; try again later."
            ) from None
        except TimeoutError:
            arrived = f"{body.size / MEGABYTE:.3g} MB arrived"
            raise HTTPException(408, f"The request did not arrive in time or arrived too slowly: {arrived}.") from None
        except ClientDisconnect:
            raise HTTPException(400, "The caller disconnected.") from None

    def _check_caller(self, request: Request) -> None:
        """Refuse callers without the token. Where none is needed, refuse callers that used another name for
        this machine: pages of strangers, which a browser here shows, reach us by names of their own.

        Raises:
            HTTPException: 401 or 403.
        """
        if self.token is None:
            host = request.headers.get("host", "")
            name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
            if name and not is_loopback(name):
                raise HTTPException(
                    403, "Access refused: without a token this server answers only requests to 127.0.0.1."
                )
            return
        scheme, _, presented = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(presented.strip().encode(), self.token.encode()):
            reason = "wrong token" if presented else "no token"
            raise HTTPException(401, f"Access refused: {reason}.", {"WWW-Authenticate": "Bearer"})


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code in UNREAD:  # what is left of the body is not waited for
        headers["connection"] = "close"
    return JSONResponse({"error": error.detail}, error.status_code, headers=headers)


async def _fail(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"The server failed with {raised(error, place=False)}."}, 500)


def build_server(
    rewards: Mapping[str, Reward],
    *,
    token: str | None = None,
    limits: Limits | None = None,
    device: torch.device | str = "cpu",
) -> Starlette:
    """The ASGI application that serves these rewards.

    Args:
        rewards: by the name that will stand in the address.
        token: what callers must present; None where nobody must.
        limits: what it takes from callers; those of `Limits` where none are named.
        device: where the rewards compute.
    """
    limits = limits or Limits()
    served = {
        name: ServedReward(name, reward, identity_of(reward), str(device), limits) for name, reward in rewards.items()
    }
    crowd = Crowd(int(max(limits.crowd, limits.megabytes) * MEGABYTE))
    service = RewardService(served, token, limits, crowd)
    handlers: Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        HTTPException: _refuse,
        Exception: _fail,
    }
    routes = [Route("/", service.describe), Route("/{name}", service.score, methods=["POST"])]
    return Starlette(routes=routes, exception_handlers=handlers)
