"""The page of `dipp vote` over HTTP, for a browser on this machine: two images, a vote, the next two.

Everything lies behind a token, the first part of every address. What a browser is told of an image is an address made
of the token and the image's number by HMAC-SHA256, from which neither follows.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import shlex
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ...errors import DippError, RequestError
from ...preferences.pair import Candidate
from ...preferences.vote_file import Showing
from ...report import templates
from ...rewards.remote.address import is_loopback
from ...rewards.remote.limits import Body, Crowd, CrowdedError, Limits, TooLargeError
from ...utils.exception_text import raised
from ...utils.messages import is_broken
from .session import Session

LIMITS = Limits(megabytes=1 / 64, crowd=1.0, timeout=30.0)
"""What a browser may send: a name, an id and a choice."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
KINDS = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
KEPT = "private, max-age=86400, immutable"
"""How long a browser keeps an image: the next ones are fetched while a voter looks at two others."""


def image_name(token: str, number: int) -> str:
    """What an image is called in addresses: HMAC-SHA256 of its number under the token, 32 hexadecimal digits."""
    return hmac.new(token.encode(), str(number).encode(), hashlib.sha256).hexdigest()[:32]


class VotePage:
    """What the server answers.

    Args:
        session: asks and keeps the votes.
        token: stands in every address.
    """

    def __init__(self, session: Session, token: str):
        self.session, self.token = session, token
        self._crowd = Crowd(2**20)
        self._by_address: dict[str, Candidate] = {}

    async def page(self, request: Request) -> Response:
        """`GET /<token>/`: the page, which holds no question."""
        return HTMLResponse(_page(str(self.session.votes.folder)))

    async def asset(self, request: Request) -> Response:
        """`GET /<token>/page.css` and `page.js`."""
        name = str(request.scope["path"]).rpartition("/")[2]
        return Response(_asset(name), media_type="text/css" if name.endswith("css") else "text/javascript")

    async def question(self, request: Request) -> Response:
        """`POST question`, `{"voter"}`: what to show to a voter."""
        return await self._act(request, lambda given: _text(given, "voter"))

    async def vote(self, request: Request) -> Response:
        """`POST vote`, `{"voter", "showing", "choice"}`: a vote; sent twice it counts once."""

        def keep(given: Mapping[str, Any]) -> str:
            self.session.answer(_text(given, "voter"), _text(given, "showing"), _text(given, "choice"))
            return _text(given, "voter")

        return await self._act(request, keep)

    async def undo(self, request: Request) -> Response:
        """`POST undo`, `{"voter", "showing"}`: the vote on that showing is taken back if it is the last."""

        def take_back(given: Mapping[str, Any]) -> str:
            self.session.undo(_text(given, "voter"), _text(given, "showing"))
            return _text(given, "voter")

        return await self._act(request, take_back)

    async def more(self, request: Request) -> Response:
        """`POST more`, `{"voter"}`: the voter goes on beyond the goal."""

        def go_on(given: Mapping[str, Any]) -> str:
            self.session.go_on(_text(given, "voter"))
            return _text(given, "voter")

        return await self._act(request, go_on)

    async def ahead(self, request: Request) -> Response:
        """`POST ahead`, `{"voter"}`: addresses of images that are likely to be shown next."""
        given = await self._body(request)

        def look() -> list[str]:
            images = self.session.ahead(_text(given, "voter"))
            return [self.address(image) for image in images or ()]

        return JSONResponse({"images": await run_in_threadpool(look)})

    async def image(self, request: Request) -> Response:
        """`GET image/<address>`: an image's file."""
        return await run_in_threadpool(self._image, request.path_params["name"])

    def _image(self, name: str) -> Response:
        if name not in self._by_address:  # of a page that was open before this server
            for candidate in self.session.votes.candidates():
                self.address(candidate)
        if name not in self._by_address:
            raise HTTPException(404, "There is no such image.")
        candidate = self._by_address[name]
        try:
            data = candidate.picture.encoded()
        except RequestError as error:
            self.session.lose(candidate, str(error))
            raise HTTPException(404, "The image is missing; its pairs are passed over.") from error
        kind = next((kind for start, kind in KINDS.items() if data.startswith(start)), "application/octet-stream")
        return Response(data, media_type=kind, headers={"Cache-Control": KEPT})

    def address(self, image: Candidate) -> str:
        """Where the page finds an image; it says nothing of the image."""
        name = image_name(self.token, image.id)
        self._by_address[name] = image
        return f"image/{name}"

    def state(self, voter: str) -> dict[str, Any]:
        """All that the page shows to a voter.

        Raises:
            DippError: the voter's name cannot be one, or the votes cannot be read or written.
        """
        progress = self.session.progress(voter)
        showing = None if progress.done else self.session.question(voter)
        lost = len(self.session.lost)
        return {
            "votes": progress.votes,
            "goal": progress.goal,
            "last": progress.last,
            "done": progress.done,
            "question": None if showing is None else self._question(showing),
            "notice": f"{lost} image{'s' * (lost != 1)} cannot be shown; their pairs are passed over." if lost else "",
        }

    def _question(self, showing: Showing) -> dict[str, str]:
        return {
            "id": showing.id,
            "prompt": showing.first.prompt,
            "left": self.address(showing.first),
            "right": self.address(showing.second),
        }

    async def _act(self, request: Request, act: Callable[[Mapping[str, Any]], str]) -> Response:
        """Do what a request asks for, and answer with what its voter is to see then."""
        given = await self._body(request)
        return JSONResponse(await run_in_threadpool(lambda: self.state(act(given))))

    async def _body(self, request: Request) -> Mapping[str, Any]:
        """The request's JSON object.

        Raises:
            HTTPException: 400, 408, 413 or 503.
        """
        body = Body(LIMITS, self._crowd)
        try:
            data = await body.receive(request.headers.get("content-length", ""), request.stream())
            given = json.loads(data)
        except TooLargeError:
            raise HTTPException(413, "The request is too large.") from None
        except CrowdedError:
            raise HTTPException(503, "Too many requests are arriving; try again.") from None
        except TimeoutError:
            raise HTTPException(408, "The request did not arrive in time.") from None
        except ClientDisconnect:
            raise HTTPException(400, "The caller disconnected.") from None
        except (ValueError, RecursionError):
            raise HTTPException(400, "The request is not JSON.") from None
        finally:
            body.let_go()
        if not isinstance(given, dict):
            raise HTTPException(400, "The request is not a JSON object.")
        return given


class Door:
    """Lets those in who have the token, from pages of this server's own, under a name of this machine.

    Args:
        application: behind the door.
        token: the first part of every address.
    """

    def __init__(self, application: Any, token: str):
        self._application, self._token = application, token

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        request = Request(scope)
        refusal = self._refusal(request)
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def send_with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                more = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *(one for one in more if one[0] not in own)]}
            await send(message)

        await self._application(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
        if not is_loopback(name):  # a stranger's page has led a name of its own to this machine
            return _refused("This page is answered under the names 127.0.0.1 and localhost alone.")
        path = str(request.scope["path"])
        if path == "/favicon.ico":  # browsers ask for it unasked
            return Response(status_code=204, headers=HEADERS)
        given = path.removeprefix("/").partition("/")[0]
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return _refused("This address has no token, or the token of another session.")
        origin = request.headers.get("origin", f"http://{host}")
        site = request.headers.get("sec-fetch-site", "same-origin")
        if request.method != "GET" and (origin != f"http://{host}" or site != "same-origin"):
            return _refused("A page of somebody else's asked for this.")
        return None


def _refused(reason: str) -> Response:
    page = templates.template(__package__, "refused.html.jinja").render(reason=reason)
    return HTMLResponse(page, 403, {**HEADERS, "Connection": "close"})


@cache
def _asset(name: str) -> str:
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    if name.endswith(".css"):  # the colours are the report's
        text = files(templates.__package__).joinpath("report.css").read_text(encoding="utf-8") + text
    return text


def _page(folder: str) -> str:
    return templates.template(__package__, "page.html.jinja").render(folder=shlex.quote(folder))


async def _explain(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code)
    if isinstance(error, RequestError):
        return JSONResponse({"error": str(error)}, 400)
    if isinstance(error, DippError):
        return JSONResponse({"error": str(error)}, 500)
    return JSONResponse({"error": f"The server failed with {raised(error, place=False)}."}, 500)


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str) or is_broken(value):
        raise HTTPException(400, f"'{name}' is not a text.")
    return value


def build_page(session: Session, token: str) -> Any:
    """The ASGI application of a session.

    Args:
        session: asks and keeps the votes.
        token: the first part of every address that is answered.
    """
    page = VotePage(session, token)
    posts = (page.question, page.vote, page.undo, page.more, page.ahead)
    routes = [
        Route("/{token}/", page.page),
        Route("/{token}/page.css", page.asset),
        Route("/{token}/page.js", page.asset),
        Route("/{token}/image/{name}", page.image),
        *(Route(f"/{{token}}/{post.__name__}", post, methods=["POST"]) for post in posts),
    ]
    handlers: Mapping[Any, Any] = {HTTPException: _explain, DippError: _explain, Exception: _explain}
    return Door(Starlette(routes=routes, exception_handlers=handlers), token)
