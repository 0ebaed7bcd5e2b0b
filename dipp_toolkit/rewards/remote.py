"""Rewards behind HTTP: `--reward http://host:8700/hps`, or several servers of one reward in turn, joined by `+`.

Servers are strangers: what they answer is bounded in size and time and checked before it is believed, no redirect is
followed, and the token goes where the user sent it and nowhere else. It comes from an environment variable or a file
and is no option itself, because options are written to a run's `config.yaml`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

from ..errors import PluginError, RequestError, RunError
from ..naming import unknown_name
from .elsewhere import ElsewhereReward, check_numbers
from .protocol import (
    MEGABYTE,
    ROOM,
    VERSION,
    ProtocolError,
    decode,
    decode_scores,
    differentiable_of,
    encode_request,
    error_of,
    largest_reply,
    one_line,
)
from .remote_access import TOKEN_VARIABLE, read_token
from .remote_address import Address, parse_addresses

try:
    from .remote_replica import Passing, Replica
except ImportError as missing:
    raise PluginError(
        f"A reward behind HTTP needs {missing.name}, which is not installed. Run: pip install 'dipp-toolkit[remote]'"
    ) from missing

Found = TypeVar("Found")


def load_remote(
    name: str,
    *,
    token_env: str = TOKEN_VARIABLE,
    token_file: str | None = None,
    timeout: float = 300.0,
    retries: int = 4,
    max_megabytes: float = 1024.0,
    batch: int = 0,
) -> ElsewhereReward:
    """Connect to a reward that servers offer.

    Args:
        name: an address, or several joined by `+`: they are asked in turn, and one that does not answer is passed over.
        token_env: the environment variable that holds the token.
        token_file: a file that holds it.
        timeout: seconds that a server may take to answer.
        retries: how often a server that is busy or does not answer is asked again, after pauses that grow.
        max_megabytes: of an answer.
        batch: images sent at a time, 0 for all.

    Raises:
        RequestError: an address is none, no server answers, or none offers this reward.
    """
    check_numbers(name, {"timeout": timeout, "max_megabytes": max_megabytes}, {"retries": retries, "batch": batch})
    token = read_token(token_env, token_file)
    scorer = RemoteScorer(name, parse_addresses(name), token, timeout, retries, int(max_megabytes * MEGABYTE))
    return ElsewhereReward(name, scorer, batch)


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

        def ask(replica: Replica) -> tuple[Tensor, Tensor | None]:
            answer = replica.fetch(data, limit)
            try:
                message = decode(answer)
                sentence = error_of(message)
                if sentence is not None:
                    raise RunError(f"The server {replica.address} says: {sentence}")
                return decode_scores(message, images.shape)
            except ProtocolError as error:
                raise ProtocolError(f"The server {replica.address} answered nonsense: {error}") from error

        return self._in_turn(ask)

    def close(self) -> None:
        """Close all connections."""
        for replica in self.replicas:
            replica.close()

    def _meet(self) -> None:
        """Ask every server for its description; those that do not answer may later.

        Raises:
            RequestError: none answers, or one that does cannot be used.
        """
        silent: list[str] = []
        for replica in self.replicas:
            try:
                self._learn_patiently(replica)
            except Passing as reason:
                silent.append(str(reason))
            except RunError as error:
                raise RequestError(str(error)) from error
        if len(silent) == len(self.replicas):
            raise RequestError(" ".join(silent))

    def _learn_patiently(self, replica: Replica) -> None:
        """`_learn`, again after a pause from a server that says it is busy; one that says nothing is let be."""
        for attempt in range(self.retries + 1):
            try:
                self._learn(replica)
            except Passing as reason:
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
            Passing: it does not answer.
            RequestError: it does not offer the reward, or says something else of it than the others.
            ProtocolError: it is no server of rewards.
        """
        content = replica.describe()
        rewards = content.get("rewards") if isinstance(content, dict) else None
        if not isinstance(rewards, dict) or content.get("protocol") != VERSION:
            raise ProtocolError(f"The server {replica.address} is no server of rewards of protocol version {VERSION}.")
        name = replica.address.reward
        if name not in rewards:
            known = [one_line(one, 60) for one in list(rewards)[:50]]
            raise RequestError(f"The server {replica.address}: " + unknown_name("reward", name, known))
        try:
            differentiable = differentiable_of(rewards[name])
        except ProtocolError as error:
            raise ProtocolError(f"The server {replica.address} answered nonsense: {error}") from error
        others = [one for one in self.replicas if one.met]
        if others and differentiable != self.differentiable:
            raise RequestError(
                f"The servers {others[0].address} and {replica.address} disagree on whether the reward '{name}' is "
                "differentiable; they must serve the same one."
            )
        self.differentiable, replica.met = differentiable, True

    def _in_turn(self, ask: Callable[[Replica], Found]) -> Found:
        """Ask the next server that is not resting, and others when it does not answer.

        Raises:
            RunError: all that may be tried has been.
        """
        left = (self.retries + 1) * len(self.replicas)
        spent: set[int] = set()
        while True:
            replica = self._next()
            try:
                if not replica.met:
                    self._learn(replica)
                found = ask(replica)
            except Passing as reason:
                replica.rest(reason.pause)
                left -= 1
                # A server that was waited for in vain is not waited for again: it may work on the first request still.
                if left <= 0 or (reason.timed_out and id(replica) in spent):
                    raise RunError(f"The reward '{self.name}' cannot be had: {reason}") from None
                if reason.timed_out:
                    spent.add(id(replica))
                    if len(spent) == len(self.replicas):
                        raise RunError(
                            f"{reason} Send fewer images at a time, --set reward.{self.name}.batch=1, or allow more "
                            f"time: --set reward.{self.name}.timeout=SECONDS"
                        ) from None
                continue
            replica.answered()
            return found

    def _next(self) -> Replica:
        """The server whose turn it is; where all rest, the one that will be up first, after a pause."""
        count = len(self.replicas)
        order = [self.replicas[(self.turn + offset) % count] for offset in range(count)]
        now = time.monotonic()
        replica = min(order, key=lambda one: max(one.resting_until, now))
        replica.wait()
        self.turn = (self.replicas.index(replica) + 1) % count
        return replica
