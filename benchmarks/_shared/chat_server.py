"""An OpenAI-style server for tests and benchmarks: whatever a function says of images and text, on this machine."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from dipp_toolkit.rewards.remote.serve import address_of, listen

Says = Callable[[str, Sequence[Tensor]], "str | dict[str, Any] | Response"]
"""From the text of a question and its images, each `(3, height, width)` in [0, 1]: the text of the answer, fields of a
choice, or a whole response."""


def choice(text: str, **tokens: float) -> dict[str, Any]:
    """A choice whose first word might have been one of these, by their log-probabilities."""
    told = [{"token": token, "logprob": value} for token, value in tokens.items()]
    likely = {"content": [{"token": text, "logprob": tokens.get(text, -0.1), "top_logprobs": told}]}
    return {"message": {"role": "assistant", "content": text}, "logprobs": likely, "finish_reason": "stop"}


@dataclass
class ChatServer:
    """A server.

    Attributes:
        says: what it answers.
        model: what it calls itself.
        address: up to `/v1`; known while it runs.
        asked: the bodies of all requests.
        keys: what each request presented.
    """

    says: Says
    model: str = "seer"
    address: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        self.keys.append(request.headers.get("authorization", ""))
        parts = body["messages"][-1]["content"]
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        images = [_image(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]
        answer = self.says(text, images)
        if isinstance(answer, Response):
            return answer
        if isinstance(answer, str):
            answer = {"message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
        return JSONResponse({"object": "chat.completion", "model": self.model, "choices": [answer]})

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": self.model}]})


def _image(address: str) -> Tensor:
    kind, _, data = address.partition(";base64,")
    assert kind == "data:image/png"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


@contextmanager
def chatting(says: Says, port: int = 0, **attributes: Any) -> Iterator[ChatServer]:
    """A server in a thread."""
    server = ChatServer(says, **attributes)
    routes = [
        Route("/v1/chat/completions", server.chat, methods=["POST"]), Route("/v1/models", server.models),
    ]  # fmt: skip
    listening = listen("127.0.0.1", port, None)
    running = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="error", lifespan="off"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    server.address = f"{address_of(listening)}/v1"
    try:
        yield server
    finally:
        running.should_exit = True
        thread.join(5)
        listening.close()
