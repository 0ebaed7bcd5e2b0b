"""Calls of one reward, one after another in a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any


class OneAtATime:
    """A thread that makes the calls it is given, in order; it never keeps the process from ending.

    A call that has begun cannot be stopped. One that waits can be: cancel its future.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Queue a call; its value, or what it raises, is in the future."""
        future: Future[Any] = Future()
        self._calls.put((future, call))
        return future

    def _work(self) -> None:
        while True:
            future, call = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except Exception as error:  # noqa: BLE001 -- it is raised where the result is asked for
                future.set_exception(error)
            except BaseException as error:  # noqa: BLE001 -- a reward's sys.exit() is not to end the server
                future.set_exception(RuntimeError(f"the reward wanted to end the program: {error!r}"))
            del future, call  # images of the last call are not kept while there is no next
