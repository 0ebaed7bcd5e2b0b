"""Addresses of rewards behind HTTP, as people type them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from ...errors import RequestError
from .access import is_loopback


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
    except ValueError as error:
        raise RequestError(f"The address '{text}' is invalid: {error}.") from error
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
