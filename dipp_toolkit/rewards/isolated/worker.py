"""The far side of an isolated reward: `python -m dipp_toolkit.rewards.isolated.worker FD` in its own environment.

It answers messages on the socket that it was given until it is closed: `load` first, then `score`, `to`, `identity`. It
imports of the toolkit what needs torch and nothing newer, since the environment's other packages may be years old.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from ...errors import DippError, RequestError
from ...protocols import Reward, moved
from ...utils.exception_text import raised
from ...utils.imports import check_options, import_attribute
from ..code_digests import identity_of
from ..groups import refuse_alone
from ..loading import load_reward
from ..remote.answering import answer
from ..remote.wire import SHARED, VERSION, Message, ProtocolError, decode, decode_request, encode, encode_error
from .frames import receive_frame, send_frame
from .shared_room import SharedRoom

LIMIT = 2**36
"""Bytes of a request: far more than any batch has, far less than eight bytes of garbage may announce."""


class Worker:
    """A reward and the device it is on; answers one message at a time.

    Args:
        room: where images and gradients lie that are not part of the messages; None where all are.
    """

    def __init__(self, room: SharedRoom | None = None) -> None:
        self.room = room
        self.name = ""
        self.reward: Reward | None = None
        self.device = "cpu"

    def answer(self, data: bytes) -> bytes:
        """An encoded reply to an encoded message; errors are replies."""
        try:
            message = decode(data)
            handlers: Mapping[str, Callable[[Message], bytes]] = {
                "load": self._load,
                "to": self._to,
                "score": self._score,
                "identity": self._identity,
            }
            return handlers[message.kind](message)
        except DippError as error:
            return encode_error(str(error), isinstance(error, RequestError))
        except Exception as error:  # noqa: BLE001 -- a package's own error while it loads: the asker gets a sentence
            return encode_error(f"{raised(error)}.")

    def _load(self, message: Message) -> bytes:
        content = message.content
        self.name, options = content["name"], content["options"]
        sys.path.extend(path for path in content["paths"] if path not in sys.path)
        if content["entry"]:
            load = import_attribute(content["entry"], f"the reward '{self.name}'")
            check_options(load, options, f"reward '{self.name}'")
            self.reward = load(**options)
        else:
            self.reward = load_reward(self.name, **options)
        refuse_alone(self.name, self.reward, "An environment of its own")
        return self._move(content["device"])

    def _to(self, message: Message) -> bytes:
        return self._move(message.content["device"])

    def _move(self, device: str) -> bytes:
        assert self.reward is not None
        torch.empty(0, device=device)
        self.reward, self.device = moved(self.reward, device), device
        differentiable = getattr(self.reward, "differentiable", None)  # a package's own object may say nothing
        return encode({"kind": "ready", "protocol": VERSION, "differentiable": differentiable})

    def _identity(self, message: Message) -> bytes:
        return encode({"kind": "identity", "protocol": VERSION, "identity": identity_of(self.reward)})

    def _score(self, message: Message) -> bytes:
        assert self.reward is not None
        shape = message.content.get(SHARED)
        if shape is None:
            return answer(self.name, self.reward, decode_request(message), self.device)
        room = self.room
        sizes = isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)
        if room is None or not sizes:
            raise ProtocolError("The request speaks of shared memory in a way that this worker does not understand.")
        try:
            images = room.view(shape, 0).clone()
        except ValueError as error:
            raise ProtocolError(f"The request's shared images cannot be read: {error}.") from error

        def keep(gradients: torch.Tensor) -> None:
            room.view(shape, 1).copy_(gradients)

        request = decode_request(replace(message, tensors={"images": images}))
        return answer(self.name, self.reward, request, self.device, keep)


def _end_with(connection: socket.socket) -> None:
    """Wait until nobody is at the other end, then end the process and those it started, whatever they are doing."""
    poll = select.poll()
    poll.register(connection, select.POLLHUP)
    while not any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll()):
        pass
    if os.getpgrp() == os.getpid():  # the group is our own: nobody is left to end it for us where our caller was killed
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def main(descriptor: int, shared: int | None = None) -> None:
    """Answer until the socket is closed.

    Args:
        descriptor: the socket's.
        shared: the shared room's, where there is one.
    """
    connection = socket.socket(fileno=descriptor)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    worker = Worker(None if shared is None else SharedRoom(shared))
    while (data := receive_frame(connection, LIMIT)) is not None:
        send_frame(connection, worker.answer(data))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
