"""Rewards in an environment of their own on this machine: `imagereward@isolated`, `./mine.py:blue@mine`.

A worker process in that environment holds the reward and answers over a socket. One that dies is started again once,
and the call that it died of is repeated; the second death ends the run with its last words.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import DippError, RequestError, RunError, first_line
from ..remote.proxy import ProxyReward, check_numbers
from ..remote.wire import (
    ROOM,
    SHARED,
    VERSION,
    Message,
    ProtocolError,
    decode,
    decode_report,
    decode_scores,
    differentiable_of,
    encode,
    encode_request,
    encode_shared_request,
    error_of,
    identity_in,
    largest_reply,
)
from .environments import ISOLATED, find_installed, find_registered, share
from .process import WorkerGone, WorkerProcess

MODULE = "dipp_toolkit.rewards.isolated.worker"


def find_isolated(
    name: str,
    *,
    device: str | None = None,
    timeout: float = 600.0,
    startup_timeout: float = 3600.0,
    batch: int = 0,
    **options: Any,
) -> Callable[[], ProxyReward]:
    """What starts a reward in its environment, once that is found to be there.

    Args:
        name: `<reward>@<environment>`. With the environment `isolated`, or one registered for this reward, the reward
            is its package's original; else the reward is loaded there as it would be here.
        device: where the reward computes; the run's device where none is named.
        timeout: seconds that scoring a batch may take.
        startup_timeout: seconds that loading may take, downloads included.
        batch: images sent at a time, 0 for all.
        options: the reward's own.

    Raises:
        RequestError: there is no such environment; what is returned raises where the reward cannot be loaded there.
    """
    reward, _, place = name.rpartition("@")
    try:
        json.dumps(options, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"The options of the reward '{name}' cannot be sent to its worker: {first_line(error)}."
        ) from error
    check_numbers(name, {"timeout": timeout, "startup_timeout": startup_timeout}, {"batch": batch})
    registered = find_registered(reward if place == ISOLATED else place)
    if place == ISOLATED and registered is None:
        raise RequestError(
            f"No plugin has an environment for the reward '{reward}'. Make one from a requirements file, dipp "
            f"reward install mine.txt, and name it: {reward}@mine"
        )
    installed = find_installed(registered.name if registered is not None else place)
    entry = registered.entry if registered is not None and reward in (registered.reward, registered.name) else ""
    load = {
        "name": reward,
        "entry": entry,
        "options": options,
        "device": device or "cpu",
        "paths": [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path],
    }
    command = [str(installed.python), "-P", "-m", MODULE]

    def start() -> ProxyReward:
        share(installed.folder)
        scorer = IsolatedScorer(name, command, load, timeout, startup_timeout, movable=device is None)
        return ProxyReward(name, scorer, batch)

    return start


class IsolatedScorer:
    """A `Scorer` of a worker process.

    Args:
        name: the reward's, for messages.
        command: starts a worker.
        load: the message that makes it load the reward.
        timeout: seconds a call.
        startup_timeout: seconds for the start.
        movable: whether `to` moves the reward.

    Raises:
        RequestError: the worker does not start, or cannot load the reward.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        load: Mapping[str, Any],
        timeout: float,
        startup_timeout: float,
        movable: bool = True,
    ):
        self.name = name
        self.command = list(command)
        self.load = dict(load)
        self.timeout = timeout
        self.startup_timeout = startup_timeout
        self.movable = movable
        self.differentiable: bool | None = None
        self.deaths = 0
        self.reported: Mapping[str, Tensor] = {}
        self._folder = Path.cwd()
        self._worker: WorkerProcess | None = None
        try:
            self._start()
        except WorkerGone as error:
            raise RequestError(f"The worker of the reward '{name}' died while it loaded: {error}.") from None
        except RunError as error:
            raise RequestError(str(error)) from error

    def to(self, device: str) -> None:
        """Move the reward to a device, unless the user has named one for it.

        Raises:
            RequestError: it cannot be moved there.
        """
        if not self.movable or device == self.load["device"]:
            return
        self.load["device"] = device
        try:
            self._repeat_once(lambda: self._ready({"kind": "to", "device": device}))
        except RunError as error:
            raise RequestError(str(error)) from error

    def score(self, images: Tensor, prompts: Sequence[str], gradients: bool) -> tuple[Tensor, Tensor | None]:
        """Ask the worker; see `Scorer`."""
        limit = largest_reply(images.shape, gradients)

        def ask() -> tuple[Tensor, Tensor | None]:
            assert self._worker is not None
            room, shape = self._worker.room, images.shape
            if room is None or not room.reserve(shape):
                data = encode_request(images, prompts, gradients)
                answer = self._ask(data, limit, self.timeout)
                self.reported = decode_report(answer, shape[0])
                return decode_scores(answer, shape)
            room.view(shape, 0).copy_(images.detach())
            reply = self._ask(encode_shared_request(shape, prompts, gradients), limit, self.timeout)
            self.reported = decode_report(reply, shape[0])
            scores, sent = decode_scores(reply, shape)
            return scores, room.view(shape, 1).clone() if reply.content.get(SHARED) is True else sent

        result: tuple[Tensor, Tensor | None] = self._repeat_once(ask)
        return result

    def identity(self) -> str:
        """Ask the worker what its reward is; see `Scorer`."""
        data = encode({"kind": "identity"})
        answer = self._repeat_once(lambda: self._ask(data, ROOM, self.startup_timeout))
        identity = identity_in(answer.content)
        if not identity:
            raise ProtocolError(f"The worker of the reward '{self.name}' does not send a digest of its reward.")
        return identity

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _start(self) -> None:
        self._worker = WorkerProcess(self.command, self._folder)
        self._ready({"kind": "load", "protocol": VERSION, **self.load})

    def _ready(self, content: Mapping[str, Any]) -> None:
        answer = self._ask(encode(content), ROOM, self.startup_timeout)
        if answer.kind != "ready":
            raise ProtocolError(f"The worker of the reward '{self.name}' sent something other than 'ready'.")
        self.differentiable = differentiable_of(answer.content)

    def _repeat_once(self, call: Any) -> Any:
        """Make a call; where the worker dies of it, start another and make the call again, once in a lifetime.

        Raises:
            RunError: the worker died again, or the call failed.
        """
        try:
            if self._worker is None:  # ended after Ctrl-C or a timeout, which does not count as a death
                self._start()
            return call()
        except WorkerGone as error:
            self._worker = None
            self.deaths += 1
            if self.deaths > 1:
                raise RunError(f"The worker of the reward '{self.name}' died again: {error}.") from None
            message = f"The worker of the reward '{self.name}' died and is started again: {error}."
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        return self._repeat_once(call)

    def _ask(self, data: bytes, limit: int, timeout: float) -> Message:
        """Send a message and return the reply, which is not an error.

        Raises:
            WorkerGone: the worker died.
            RequestError, RunError: the reward reported an error, or the reply is invalid.
        """
        assert self._worker is not None
        answer = None
        try:
            answer = self._worker.exchange(data, limit, timeout)
        except TimeoutError:
            raise RunError(
                f"The reward '{self.name}' did not answer within {timeout:g} s, and its worker was ended. Send fewer "
                f"images at a time, --set reward.{self.name}.batch=1, or allow more time: "
                f"--set reward.{self.name}.{'timeout' if timeout == self.timeout else 'startup_timeout'}=SECONDS"
            ) from None
        except ProtocolError as error:
            raise ProtocolError(f"The worker of the reward '{self.name}' sent an invalid response: {error}") from error
        finally:
            if answer is None:
                self._worker = None
        try:
            message = decode(answer)
        except ProtocolError as error:
            raise ProtocolError(f"The worker of the reward '{self.name}' sent an invalid response: {error}") from error
        sentence = error_of(message)
        if sentence is None:
            return message
        kind: type[DippError] = RequestError if message.content.get("wrong_request") is True else RunError
        raise kind(f"The reward '{self.name}' in its environment: {sentence.rstrip('.')}.")
