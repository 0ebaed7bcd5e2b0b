"""Errors as the client of the Hugging Face hub raises them."""

from __future__ import annotations

import httpx
from huggingface_hub.errors import HfHubHTTPError


def hub_error(kind: type[Exception]) -> Exception:
    """An error of the hub's client, with the answer that it holds on to."""
    if not issubclass(kind, HfHubHTTPError):
        return kind("oh")
    return kind("oh", response=httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co")))
