"""Addresses of rewards behind HTTP, which of them are this machine alone, and the token that is presented there."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ...errors import RequestError
from ...utils.paths import user_path

TOKEN_VARIABLE = "DIPP_REWARD_TOKEN"
MOST_TOKEN = 4096
"""Characters of a token: servers take 16 KB of headers."""


@dataclass(frozen=True)
class Address:
    """One server, and what it calls the reward.

    Attributes:
        base: such as `https://host:8700`, or with a path where the server is behind another; no slash at the end.
        reward: such as `hps`.
        host: of the base.
    """

    base: str
    reward: str
    host: str

    @property
    def is_local(self) -> bool:
        """Whether it is this machine."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return self.base


def parse_addresses(name: str) -> list[Address]:
    """The addresses that a name joins by `+`.

    Raises:
        RequestError: one is not the address of a reward.
    """
    return [_parse(address) for address in re.split(r"\+(?=https?://)", name)]


def _parse(text: str) -> Address:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # whose text quotes the address, where a token may have been written for the port
        raise RequestError(
            "The address of a reward is invalid; expected one such as http://127.0.0.1:8700/hps"
        ) from None
    if parts.username is not None or parts.password is not None:
        raise RequestError(
            "The address of a reward contains a user name; a token belongs in the environment variable "
            "DIPP_REWARD_TOKEN."
        )
    base, _, reward = parts.path.rpartition("/")
    if not host or not reward or parts.query or parts.fragment or any(letter.isspace() for letter in text):
        raise RequestError(
            f"The address '{text}' does not name a reward of a server; expected one such as http://127.0.0.1:8700/hps"
        )
    shown = f"[{host}]" if ":" in host else host
    return Address(f"{parts.scheme}://{shown}{'' if port is None else f':{port}'}{base}", unquote(reward), host)


def read_token(variable: str | None = TOKEN_VARIABLE, file: Path | str | None = None) -> str | None:
    """The token in a file, or else in an environment variable; None where there is neither.

    Args:
        variable: the variable's name.
        file: its content is the token; white space around it does not count.

    Raises:
        RequestError: the file cannot be read, or it does not hold a token. The content is not quoted.
    """
    if file is not None:
        path = user_path(file)
        try:
            with path.open("rb") as opened:
                token = opened.read(MOST_TOKEN + 1).decode("utf-8").strip()
            where = f"The token file {path}"
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise RequestError(f"Cannot read the token file {path}: {reason}.") from error
    else:
        token, where = os.environ.get(variable or "", "").strip(), f"The environment variable {variable}"
        if not token:
            return None
    if not re.fullmatch(r"[\x21-\x7e]+", token) or len(token) > MOST_TOKEN:
        raise RequestError(f"{where} does not hold a token; expected printable ASCII characters without spaces.")
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
