"""Dry runs made by a second process, ahead of the plans that will need them.

A dry run is Python and keeps one core busy. A plan needs several that do not depend on each other, and which ones is
mostly known before the first: where another core is free, some are made there.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import update_wrapper
from multiprocessing.connection import Connection
from typing import Any, Generic, NamedTuple, TypeVar

R = TypeVar("R")


class Remembered(Generic[R]):
    """A function whose results are kept, and may come from the second process.

    Args:
        function: of hashable arguments; its results depend on nothing else, and can be pickled.
    """

    def __init__(self, function: Callable[..., R]) -> None:
        update_wrapper(self, function)
        self._function = function
        self._results: dict[tuple[Any, ...], R] = {}

    def __call__(self, *args: Any) -> R:
        """The result, made here unless it is there or the other process has begun with it."""
        ahead = _AHEAD.get()
        if args not in self._results and (ahead is None or not ahead.brings(Call(self, args))):
            self._results[args] = self._function(*args)
        return self._results[args]

    def keep(self, args: tuple[Any, ...], result: R) -> None:
        """Take a result that was made elsewhere."""
        self._results[args] = result

    def cache_clear(self) -> None:
        """Forget all results."""
        self._results.clear()


class Call(NamedTuple):
    """A call of a remembered function."""

    function: Remembered[Any]
    args: tuple[Any, ...]


@contextmanager
def made_ahead(calls: Iterable[Call]) -> Iterator[None]:
    """Inside, a second process makes calls, those first that come first, and leaves out what is being made here.

    Without a second core, or where processes cannot be forked, nothing is made ahead.

    Args:
        calls: likely to be needed; what was made for nothing is dropped.
    """
    once = tuple(dict.fromkeys(calls))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if not once or cores < 2 or sys.platform != "linux":
        yield
        return
    ahead = _Ahead(once)
    token = _AHEAD.set(ahead)
    try:
        yield
    finally:
        _AHEAD.reset(token)
        ahead.stop()


class _Ahead:
    """The second process, and who makes what: a call belongs to the process that claims it first."""

    def __init__(self, calls: tuple[Call, ...]) -> None:
        forked = multiprocessing.get_context("fork")
        self._calls = calls
        self._failed: set[Call] = set()
        self._claimed = forked.Array("b", len(calls))
        self._results, theirs = forked.Pipe(duplex=False)
        self._process = forked.Process(target=self._make_all, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def _make_all(self, results: Connection) -> None:
        _AHEAD.set(None)
        for number, call in enumerate(self._calls):
            if self._claim(number):
                try:
                    results.send((number, True, call.function(*call.args)))
                except Exception:  # noqa: BLE001 -- the other process makes it again, and says what is wrong
                    results.send((number, False, None))

    def _claim(self, number: int) -> bool:
        with self._claimed.get_lock():
            free = not self._claimed[number]
            self._claimed[number] = 1
        return free

    def brings(self, call: Call) -> bool:
        """Whether a call was begun there; then its result is kept when this returns."""
        if call not in self._calls or self._claim(self._calls.index(call)):
            return False
        while call not in self._failed:
            try:
                number, made, result = self._results.recv()
            except EOFError:  # it is gone
                return False
            other = self._calls[number]
            if not made:
                self._failed.add(other)
                continue
            other.function.keep(other.args, result)
            if other == call:
                return True
        return False

    def stop(self) -> None:
        """End it, whatever it is at."""
        self._process.kill()
        self._process.join()
        self._results.close()


_AHEAD: ContextVar[_Ahead | None] = ContextVar("_AHEAD", default=None)
