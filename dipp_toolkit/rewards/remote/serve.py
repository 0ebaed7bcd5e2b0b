"""Starting a server of rewards: who may reach it, with which token, on which address."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import DippError, RequestError, RunError
from ...utils.packages import not_installed
from .address import TOKEN_VARIABLE, is_loopback

MOST_CALLERS = 64
SHORTEST_TOKEN = 16
"""Characters of a token where others can reach the server and try."""
ASKED_EVERY = 0.5
"""Seconds between two questions whether there is nothing more to serve."""


def public_name(name: str) -> str:
    """What a reward is called in an address: `imagereward` for `imagereward@isolated`, `blue` for `./mine.py:blue`."""
    plain = name.rpartition("@")[0] or name
    return plain.rpartition(":")[2].rpartition("/")[2].removesuffix(".py") or plain


def public_names(names: Sequence[str]) -> dict[str, str]:
    """Rewards as typed, by what they are called in addresses.

    Raises:
        RequestError: two would be called the same.
    """
    served: dict[str, str] = {}
    for name in names:
        short = public_name(name)
        if not re.fullmatch(r"[\w.-]+", short):
            raise RequestError(
                f"The name of the reward '{name}' cannot be part of an address; serve it from a file with a plain name."
            )
        if short in served:
            raise RequestError(f"The rewards '{served[short]}' and '{name}' would both be served as '{short}'.")
        served[short] = name
    return served


def listen(host: str, port: int, token: str | None) -> socket.socket:
    """A socket that listens.

    Raises:
        RequestError: the address is taken or not this machine's, or others could reach it and there is no token or a
            short one.
    """
    if not is_loopback(host):
        _check_guarded(host, token)
    try:
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        family, address = resolved[0], str(resolved[4][0])
        if not is_loopback(address):  # `localhost` is whatever this machine's files say
            _check_guarded(host, token)
        listening = socket.create_server((address, port), family=family)
        # Connections inherit it. Without it an answer waits for the caller's delayed acknowledgement, 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RequestError(f"Cannot listen on {host}, port {port}: {reason}. Choose another with --port.") from error


def _check_guarded(host: str, token: str | None) -> None:
    if token is None:
        raise RequestError(
            f"Others can reach {host}, so a token is needed: put one in a file and name it with --token-file, or "
            f"in the environment variable {TOKEN_VARIABLE}. Without --host, only this machine can reach the server."
        )
    if len(token) < SHORTEST_TOKEN:
        raise RequestError(
            f"Others can reach {host} and guess the token, which has {len(token)} characters; expected "
            f"{SHORTEST_TOKEN} or more, for example from: openssl rand -hex 32"
        )


def address_of(listening: socket.socket) -> str:
    """Such as `http://127.0.0.1:8700`; this machine's name stands in it where the socket hears all addresses."""
    host, port = listening.getsockname()[:2]
    address = ipaddress.ip_address(host)
    shown = socket.gethostname() if address.is_unspecified else f"[{host}]" if address.version == 6 else host
    return f"http://{shown}:{port}"


def server_config(rewards: Mapping[str, Any], **options: Any) -> Any:
    """uvicorn's configuration of a server of rewards, with limits on all that callers can make it wait for.

    Args:
        rewards: loaded, by what they are called in addresses.
        options: of `build_server`.

    Raises:
        PluginError: the packages of the extra `remote` are missing.
    """
    try:
        import uvicorn  # noqa: F401 -- whether it is there

        from .limits import Limits
        from .server import build_server
    except ImportError as error:
        raise not_installed("Serving rewards needs", [error.name or "uvicorn"], extra="remote") from error
    limits = options.get("limits") or Limits()
    return application_config(build_server(rewards, **{**options, "limits": limits}), limits)


def application_config(application: Any, limits: Any) -> Any:
    """uvicorn's configuration of an application, with limits on all that callers can make it wait for.

    Args:
        application: ASGI.
        limits: of `rewards.remote.limits`.

    Raises:
        ImportError: uvicorn is not installed.
    """
    import uvicorn

    from .http import MOST_HEAD, patient_protocol

    return uvicorn.Config(
        application,
        http=patient_protocol(limits),
        ws="none",
        log_level="warning",
        access_log=False,
        lifespan="off",
        proxy_headers=False,
        h11_max_incomplete_event_size=MOST_HEAD,
        limit_concurrency=MOST_CALLERS,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
    )


def run_server(
    rewards: Mapping[str, Any], listening: socket.socket, on_start: Callable[[str], None] | None = None, **options: Any
) -> None:
    """Serve until somebody stops the process; Ctrl-C lets calls that have begun come to their end, twice does not.

    Args:
        rewards: loaded, by what they are called in addresses.
        listening: from `listen`.
        on_start: called with the address once the server answers.
        options: of `build_server`.

    Raises:
        PluginError: the packages of the extra `remote` are missing.
        RequestError: others can reach the socket, and there is no token.
        RunError: the server stopped by itself.
        KeyboardInterrupt: somebody stopped it.
    """
    config = server_config(rewards, **options)
    host = str(listening.getsockname()[0])
    if not is_loopback(host):
        _check_guarded(host, options.get("token"))
    if on_start is not None:
        on_start(address_of(listening))
    serve_until_stopped(config, listening)


def serve_until_stopped(config: Any, listening: socket.socket, done: Callable[[], bool] | None = None) -> None:
    """Serve until somebody stops the process, or there is nothing more to serve.

    Args:
        config: of `application_config`.
        listening: from `listen`; it is closed.
        done: asked twice a second whether there is nothing more to serve; requests that have begun are answered then.

    Raises:
        RunError: the server stopped by itself.
        KeyboardInterrupt: somebody stopped it.
    """
    import uvicorn

    server, stopped_by_hand = uvicorn.Server(config), threading.Event()

    def watch(done: Callable[[], bool]) -> None:
        while not stopped_by_hand.wait(ASKED_EVERY):
            try:
                over = done()
            except DippError:  # a file that is in use for a moment; requests that meet it say so
                continue
            if over:
                server.should_exit = True
                return

    watcher = threading.Thread(target=watch, args=(done,), daemon=True) if done is not None else None
    try:
        if watcher is not None:
            watcher.start()
        server.run(sockets=[listening])
    except SystemExit as stopped:
        raise RunError("The server could not start; the reason is above.") from stopped
    finally:
        stopped_by_hand.set()
        listening.close()
    if done is not None and done():
        return
    # uvicorn returns because it was told to stop, and where SIGINT is ignored (in the background) it raises nothing.
    raise KeyboardInterrupt
