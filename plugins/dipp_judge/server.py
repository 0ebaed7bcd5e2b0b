"""An OpenAI-style server as a judge is asked there: patiently, and never after it said no for good."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

from dipp_toolkit.errors import RunError
from dipp_toolkit.rewards.remote.connection import Connection, NotFound, Refused, Unavailable, pause_after
from dipp_toolkit.rewards.remote.wire import MEGABYTE, one_line

from .question import Question
from .reading import Answer, Unusable, answer_of

MOST_ANSWER = 4 * MEGABYTE
"""Bytes of a response: some thousand tokens with their log-probabilities."""
MOST_MODELS = 12


class Server:
    """A server, which several threads ask at once.

    Args:
        connection: to it.
        retries: attempts after the first where it is busy or does not answer.
        allow: called before each attempt; raises where there may be none.
    """

    def __init__(self, connection: Connection, retries: int, allow: Callable[[], None]):
        self.connection = connection
        self.retries = retries
        self.allow = allow
        self.stopped = threading.Event()

    def ask(self, question: Question) -> Answer:
        """The answer to a question.

        Raises:
            RunError: the server does not answer, refuses, or sends what is no JSON.
            Unusable: it does not take this question, or its response is no answer.
        """
        body = question.body()
        for attempt in range(1, self.retries + 2):
            if self.stopped.is_set():
                raise RunError("The judge is asked no more: another of its answers has failed.")
            self.allow()
            try:
                data = self.connection.ask("POST", "/chat/completions", body, MOST_ANSWER)
            except Unavailable as reason:
                if attempt > self.retries:
                    raise RunError(f"The judge is unavailable: {reason}") from None
                self.stopped.wait(pause_after(attempt, reason.pause))
            except NotFound as error:
                raise RunError(f"{error} {self._models(question.model)}") from None
            except Refused as error:
                raise Unusable(str(error)) from None
            else:
                break
        try:
            content = json.loads(self.connection.without_token(data))
        except (ValueError, RecursionError):
            raise RunError(
                f"The server {self.connection.base} sent a response that is not JSON; is it an OpenAI-style server, "
                "and does the address end where /chat/completions begins, as in http://host:8000/v1?"
            ) from None
        return answer_of(content)

    def models(self) -> list[str]:
        """Names of the models that the server has; empty where it does not say."""
        try:
            content = json.loads(self.connection.ask("GET", "/models", None, MOST_ANSWER))
        except (Unavailable, RunError, ValueError, RecursionError):
            return []
        rows = content.get("data") if isinstance(content, dict) else None
        names = [row.get("id") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        return [one_line(name, 80) for name in names if isinstance(name, str)]

    def _models(self, model: str) -> str:
        names = self.models()
        if not names:
            return "Does the address end where /chat/completions begins, as in http://host:8000/v1?"
        listing = f"The models there: {', '.join(names[:MOST_MODELS])}{' and others' * (len(names) > MOST_MODELS)}."
        return listing if model not in names else "It has the model, so the address seems to lack a part of its path."
