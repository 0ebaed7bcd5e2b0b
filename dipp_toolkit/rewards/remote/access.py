"""Who may talk to whom: the token that callers and servers share, and which addresses are this machine alone."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path

from ...errors import RequestError
from ...utils.paths import user_path

TOKEN_VARIABLE = "DIPP_REWARD_TOKEN"
MOST_TOKEN = 4096
"""Characters of a token: servers take 16 KB of headers."""


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
