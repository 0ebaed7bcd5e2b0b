"""Starting the page of `dipp vote`: its token, its address, and a browser that is led there."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from urllib.parse import urlsplit

from ...rewards.remote.serve import address_of, application_config, listen, serve_until_stopped
from ...utils.packages import missing_of, not_installed
from ...utils.paths import cache_place
from .session import Session

NEEDED = ("starlette", "uvicorn")
TOKEN = re.compile(r"[A-Za-z0-9_-]{22,64}")


def check_packages() -> None:
    """Refuse to go on without what serves the page.

    Raises:
        PluginError: the packages of the extra `vote` are missing.
    """
    missing = missing_of(NEEDED)
    if missing:
        raise not_installed("The page of dipp vote needs", missing, extra="vote")


def token_of(folder: Path) -> str:
    """The token in the address of a folder's page: 128 random bits, the same whenever the page is started again.

    It lies in a file of `cache_place("vote")` that nobody else may read, and not in the folder, which may be
    given away. A page that stays open while its server is started again goes on.
    """
    fresh = secrets.token_urlsafe(16)
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    path = cache_place("vote") / f"{name}.token"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
        if TOKEN.fullmatch(kept):
            return kept
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(fresh)
    except (OSError, ValueError):
        return fresh  # where nothing can be kept, the next start has another address
    return fresh


def open_page(folder: Path, port: int) -> tuple[socket.socket, str]:
    """A socket that listens on this machine alone, and the address of the page.

    Args:
        folder: of the votes.
        port: 0 for any free one.

    Raises:
        RequestError: the port is taken.
    """
    listening = listen("127.0.0.1", port, None)
    return listening, f"{address_of(listening)}/{token_of(folder)}/"


def has_browser() -> bool:
    """Whether a browser could show itself: on Linux one without a display would take the terminal."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def run_page(
    session: Session,
    listening: socket.socket,
    address: str,
    *,
    browser: bool = False,
    done: Callable[[], bool] | None = None,
) -> None:
    """Serve the page until somebody stops the process, or there is nothing more to ask.

    Args:
        session: asks and keeps the votes.
        listening: from `open_page`.
        address: from `open_page`; `?voter=NAME` may stand behind it.
        browser: show it in this machine's browser.
        done: whether there is nothing more to ask; a page that is open has learned of it a little later.

    Raises:
        RunError: the server stopped by itself.
        KeyboardInterrupt: somebody stopped it.
    """
    from .server import LIMITS, build_page

    token = urlsplit(address).path.strip("/")
    # The socket listens already, so that the browser waits for the server.
    with _shown(address, session.votes.folder) if browser else nullcontext():
        serve_until_stopped(application_config(build_page(session, token), LIMITS), listening, done)


@contextmanager
def _shown(address: str, folder: Path) -> Iterator[None]:
    """The page in this machine's browser, which is led there by a file that nobody else may read.

    What a browser is started with is in the list of processes, which everybody on the machine reads. The file lies in
    the folder of the votes, since browsers in a sandbox of their own do not see `/tmp` and hidden folders.
    """
    from ...report.templates import template

    with ExitStack() as made:
        with suppress(OSError):  # the link is on the terminal
            opened, name = tempfile.mkstemp(prefix="open-in-browser-", suffix=".html", dir=folder.resolve())
            made.callback(Path(name).unlink, missing_ok=True)
            with os.fdopen(opened, "w", encoding="utf-8") as file:  # mkstemp made it of mode 0600
                file.write(template(__package__, "led.html.jinja").render(address=address))
            webbrowser.open(Path(name).as_uri())
        yield
