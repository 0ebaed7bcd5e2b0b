"""Starting a server of rewards: who may reach it, with which token, on which address."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import PluginError, RequestError, RunError
from .remote_access import TOKEN_VARIABLE, is_loopback

MOST_CALLERS = 64


def public_name(name: str) -> str:
    """What a reward is called in an address: `imagereward` for `imagereward@isolated`, `blue` for `./mine.py:blue`."""
    plain = name.rpartition("@")[0] or name
    return plain.rpartition(":")[2].rpartition("/")[2].removesuffix(".py") or plain


def public_names(names: Sequence[str]) -> dict[str, str]:
    """Rewards as typed, by what they are called in addresses.

    Raises:
        RequestError: two would be called the same.
    """
    found: dict[str, str] = {}
    for name in names:
        short = public_name(name)
        if not re.fullmatch(r"[\w.-]+", short):
            raise RequestError(f"The reward '{name}' cannot be named in an address.")
        if short in found:
            raise RequestError(f"The rewards '{found[short]}' and '{name}' would both be served as '{short}'.")
        found[short] = name
    return found


def listen(host: str, port: int, token: str | None) -> socket.socket:
    """A socket that listens.

    Raises:
        RequestError: the address is taken or none of ours, or others could reach it and there is no token.
    """
    if token is None and not is_loopback(host):
        raise RequestError(
            f"Others can reach {host}, so a token is needed: put one into a file and name it with --token-file, or "
            f"into the environment variable {TOKEN_VARIABLE}. Without --host, only this machine can reach the server."
        )
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listening = socket.create_server((host, port), family=family)
        # Connections inherit it. Without it an answer waits for the caller's delayed acknowledgement, 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RequestError(f"Cannot listen on {host}, port {port}: {reason}. Choose another with --port.") from error


def address_of(listening: socket.socket) -> str:
    """Such as `http://127.0.0.1:8700`; this machine's name stands in it where the socket hears all addresses."""
    host, port = listening.getsockname()[:2]
    address = ipaddress.ip_address(host)
    shown = socket.gethostname() if address.is_unspecified else f"[{host}]" if address.version == 6 else host
    return f"http://{shown}:{port}"


def run_server(
    rewards: Mapping[str, Any], listening: socket.socket, on_start: Callable[[str], None] | None = None, **options: Any
) -> None:
    """Serve until somebody stops the process; Ctrl-C lets calls that have begun come to their end, twice does not.

    Args:
        rewards: loaded, by what they are called in addresses.
        listening: from `listen`.
        on_start: told the address once the server answers.
        options: of `build_server`.

    Raises:
        RequestError: the packages of the extra `remote` are missing.
        RunError: the server stopped by itself.
        KeyboardInterrupt: somebody stopped it.
    """
    try:
        import uvicorn

        from .server import build_server
    except ImportError as error:
        raise PluginError(
            f"Serving rewards needs {error.name}, which is not installed. Run: pip install 'dipp-toolkit[remote]'"
        ) from error
    application = build_server(rewards, **options)
    config = uvicorn.Config(
        application,
        log_level="warning",
        access_log=False,
        lifespan="off",
        limit_concurrency=MOST_CALLERS,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
    )
    if on_start is not None:
        on_start(address_of(listening))
    server = uvicorn.Server(config)
    try:
        server.run(sockets=[listening])
    except SystemExit as stopped:
        raise RunError("The server could not start; its last words are above.") from stopped
    finally:
        listening.close()
    # uvicorn returns because it was told to stop, and where SIGINT is ignored (in the background) it raises nothing.
    raise KeyboardInterrupt
