"""Rewards behind HTTP: `--reward http://host:8700/hps`, or several servers of one reward in turn, joined by `+`.

Servers are not trusted: a response is bounded in size and time and checked before it is used, no redirect is followed,
and the token goes only where the user sent it. It comes from an environment variable or a file and is not an option
itself, because options are written to a run's `config.yaml`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ...errors import RequestError, RunError
from ...utils.messages import unknown_name
from ...utils.packages import not_installed
from .address import TOKEN_VARIABLE, Address, parse_addresses, read_token
from .proxy import ProxyReward, check_numbers
from .wire import (
    MEGABYTE,
    ROOM,
    VERSION,
    ProtocolError,
    decode,
    decode_scores,
    differentiable_of,
    encode_request,
    error_of,
    identity_in,
    largest_reply,
    one_line,
)

try:
    from .connection import Unavailable
    from .replica import Replica
except ImportError as missing:
    raise not_installed("A reward behind HTTP needs", [missing.name or "httpx"], extra="remote") from missing

Found = TypeVar("Found")
AGREEMENT = 0.02
"""How far apart scores of one image may be, as a share of them: devices and precisions differ."""
_RAMP = torch.linspace(0, 1, 64).expand(3, 64, 64)
PROBE = (
    torch.stack([_RAMP, _RAMP.transpose(1, 2) * torch.tensor([1.0, 0.5, 0.25])[:, None, None]]),
    ["a photograph"] * 2,
)
"""Images and prompts that every server of a reward scores where there are several."""


def load_remote(
    name: str,
    *,
    token_env: str = TOKEN_VARIABLE,
    token_file: str | None = None,
    timeout: float = 300.0,
    retries: int = 4,
    max_megabytes: float = 1024.0,
    batch: int = 0,
) -> ProxyReward:
    """Connect to a reward that servers offer.

    Args:
        name: an address, or several joined by `+`: they take turns, and one that does not answer is skipped.
        token_env: the environment variable that holds the token.
        token_file: a file that holds it.
        timeout: seconds that a server may take to answer.
        retries: attempts after the first at a server that is busy or does not answer, after growing pauses.
        max_megabytes: of an answer.
        batch: images sent at a time, 0 for all.

    Raises:
        RequestError: an address is invalid, no server answers, or none serves this reward.
    """
    check_numbers(name, {"timeout": timeout, "max_megabytes": max_megabytes}, {"retries": retries, "batch": batch})
    token = read_token(token_env, token_file)
    scorer = RemoteScorer(name, parse_addresses(name), token, timeout, retries, int(max_megabytes * MEGABYTE))
    return ProxyReward(name, scorer, batch)


def _scores(replica: Replica, data: bytes, limit: int, shape: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """A server's answer, checked.

    Raises:
        Unavailable: it does not answer.
        RunError: it failed, its response is invalid, or it serves another reward than at the start.
    """
    answer = replica.fetch(data, limit)
    try:
        message = decode(answer)
        sentence = error_of(message)
        if sentence is not None:
            raise RunError(f"The server {replica.address} says: {sentence}")
        scores = decode_scores(message, shape)
    except ProtocolError as error:
        raise ProtocolError(f"The server {replica.address} sent an invalid response: {error}") from error
    identity = identity_in(message.content)
    if identity and replica.identity and identity != replica.identity:
        raise RunError(
            f"The server {replica.address} serves another reward '{replica.address.reward}' now than at the start: its "
            "code or weights have changed. Serve the earlier one again, or start a new run."
        )
    return scores


def _probe(replica: Replica, max_bytes: int) -> Tensor | None:
    """A server's scores of two small images; None where its reward has none for them.

    Raises:
        Unavailable: it does not answer.
    """
    images, prompts = PROBE
    limit = min(largest_reply(images.shape, False), max_bytes)
    try:
        return _scores(replica, encode_request(images, prompts, False), limit, images.shape)[0]
    except RunError:  # the images may be too small for it, say; what it says of real ones is reported then
        return None


def _check_agreement(first: Replica, second: Replica) -> None:
    """Refuse servers of different rewards; warn where only their digests differ.

    Raises:
        RequestError: their scores of the same images differ, or there are none and their digests differ.
    """
    who = f"The servers {first.address} and {second.address}"
    differ = bool(first.identity and second.identity and first.identity != second.identity)
    if first.probe is not None and second.probe is not None:
        apart = (first.probe - second.probe).abs().max()
        scale = torch.maximum(first.probe.abs().max(), second.probe.abs().max())
        alike = torch.equal(first.probe.isnan(), second.probe.isnan()) and not bool(apart > AGREEMENT * scale)
        if not alike:
            scores = (", ".join(f"{float(score):.4g}" for score in probe) for probe in (first.probe, second.probe))
            raise RequestError(
                f"{who} disagree: one scores the same two images {' and the other '.join(scores)}. They must serve "
                "the same reward, with the same options and weights, and it must not draw random numbers."
            )
        if differ:
            warnings.warn(
                f"{who} serve rewards of different code or weights, though their scores of two images agree to "
                f"{AGREEMENT:.0%}.",
                RuntimeWarning,
                stacklevel=2,
            )
    elif differ:
        raise RequestError(f"{who} serve rewards of different code or weights; they must serve the same one.")


class RemoteScorer:
    """A `Scorer` of one or more servers.

    Args:
        name: as typed, for messages.
        addresses: one a server.
        token: presented to each; None for none.
        timeout: seconds an answer.
        retries: of each server, for one call.
        max_bytes: of an answer.

    Raises:
        RequestError: no server answers, or one that does cannot be used.
    """

    def __init__(
        self, name: str, addresses: Sequence[Address], token: str | None, timeout: float, retries: int, max_bytes: int
    ):
        self.name = name
        self.retries = retries
        self.max_bytes = max_bytes
        self.replicas = [Replica(address, token, timeout) for address in addresses]
        self.turn = 0
        self.differentiable: bool | None = None
        try:
            self._meet()
        except BaseException:
            self.close()
            raise

    def score(self, images: Tensor, prompts: Sequence[str], gradients: bool) -> tuple[Tensor, Tensor | None]:
        """Ask a server; see `Scorer`."""
        data = encode_request(images, prompts, gradients)
        limit = min(largest_reply(images.shape, gradients), self.max_bytes)
        expected = largest_reply(images.shape, gradients) - ROOM
        if expected > self.max_bytes:
            raise RunError(
                f"An answer of the reward '{self.name}' has {expected / MEGABYTE:.0f} MB, more than max_megabytes "
                f"allows. Send fewer images at a time: --set reward.{self.name}.batch=1"
            )

        return self._in_turn(lambda replica: _scores(replica, data, limit, images.shape))

    def identity(self) -> str:
        """The digest that the servers send; where they send none, the reward's scores of two small images."""
        identity = next((replica.identity for replica in self.replicas if replica.identity), "")
        if identity:
            return identity
        scores, _ = self.score(*PROBE, False)
        return "probe:" + ":".join(f"{float(score):.4g}" for score in scores)

    def close(self) -> None:
        """Close all connections."""
        for replica in self.replicas:
            replica.close()

    def _meet(self) -> None:
        """Ask every server for its description; one that does not answer now may answer later.

        Raises:
            RequestError: none answers, or one that does cannot be used.
        """
        silent: list[str] = []
        for replica in self.replicas:
            try:
                self._learn_patiently(replica)
            except Unavailable as reason:
                silent.append(str(reason))
            except RunError as error:
                raise RequestError(str(error)) from error
        if len(silent) == len(self.replicas):
            raise RequestError(" ".join(silent))

    def _learn_patiently(self, replica: Replica) -> None:
        """`_learn`, again after a pause where a server says that it is busy; one that does not answer is left alone."""
        for attempt in range(self.retries + 1):
            try:
                self._learn(replica)
            except Unavailable as reason:
                replica.rest(reason.pause)
                if not reason.busy or attempt == self.retries:
                    raise
                replica.wait()
            else:
                replica.answered()
                return

    def _learn(self, replica: Replica) -> None:
        """What a server says of the reward.

        Raises:
            Unavailable: it does not answer.
            RequestError: it does not serve the reward, or describes it differently than the others.
            ProtocolError: it is not a server of rewards.
        """
        content = replica.describe()
        rewards = content.get("rewards") if isinstance(content, dict) else None
        if not isinstance(rewards, dict) or content.get("protocol") != VERSION:
            raise ProtocolError(
                f"The server {replica.address} does not serve rewards by version {VERSION} of the protocol."
            )
        name = replica.address.reward
        if name not in rewards:
            names = [one_line(reward, 60) for reward in list(rewards)[:50]]
            raise RequestError(f"The server {replica.address}: " + unknown_name("reward", name, names))
        try:
            differentiable = differentiable_of(rewards[name])
        except ProtocolError as error:
            raise ProtocolError(f"The server {replica.address} sent an invalid response: {error}") from error
        others = [other for other in self.replicas if other.met]
        if others and differentiable != self.differentiable:
            raise RequestError(
                f"The servers {others[0].address} and {replica.address} disagree on whether the reward '{name}' is "
                "differentiable; they must serve the same one."
            )
        replica.identity = identity_in(rewards[name])
        if len(self.replicas) > 1:
            replica.probe = _probe(replica, self.max_bytes)
        for other in others[:1]:
            _check_agreement(other, replica)
        self.differentiable, replica.met = differentiable, True

    def _in_turn(self, ask: Callable[[Replica], Found]) -> Found:
        """Ask the next server that is not resting, and others when it does not answer.

        Raises:
            RunError: every attempt failed.
        """
        attempts = (self.retries + 1) * len(self.replicas)
        spent: set[int] = set()
        while True:
            replica = self._next()
            try:
                if not replica.met:
                    self._learn(replica)
                answer = ask(replica)
            except Unavailable as reason:
                replica.rest(reason.pause)
                attempts -= 1
                # A server that was waited for in vain is not waited for again: it may work on the first request still.
                if attempts <= 0 or (reason.timed_out and id(replica) in spent):
                    raise RunError(f"The reward '{self.name}' is unavailable: {reason}") from None
                if reason.timed_out:
                    spent.add(id(replica))
                    if len(spent) == len(self.replicas):
                        raise RunError(
                            f"{reason} Send fewer images at a time, --set reward.{self.name}.batch=1, or allow more "
                            f"time: --set reward.{self.name}.timeout=SECONDS"
                        ) from None
                continue
            replica.answered()
            return answer

    def _next(self) -> Replica:
        """The server whose turn it is; where all rest, the one that will be up first, after a pause."""
        count = len(self.replicas)
        order = [self.replicas[(self.turn + offset) % count] for offset in range(count)]
        now = time.monotonic()
        replica = min(order, key=lambda server: max(server.resting_until, now))
        replica.wait()
        self.turn = (self.replicas.index(replica) + 1) % count
        return replica
