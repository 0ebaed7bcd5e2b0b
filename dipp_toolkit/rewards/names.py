"""Names of rewards that say where the reward lives: `<reward>@<environment>`, or an address."""

from __future__ import annotations

import re

ENVIRONMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ADDRESSES = ("http://", "https://")


def is_remote_name(name: str) -> bool:
    """Whether a name is the address of a reward behind HTTP."""
    return name.startswith(ADDRESSES)


def is_isolated_name(name: str) -> bool:
    """Whether a name is `<reward>@<environment>`, the reward being named as it would be without an environment."""
    reward, separator, environment = name.rpartition("@")
    return bool(separator and reward and ENVIRONMENT.fullmatch(environment)) and not is_remote_name(name)
