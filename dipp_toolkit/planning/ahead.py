"""Dry runs made by a second process, ahead of the plans that will need them.

A dry run is Python and keeps one core busy. A plan needs several that do not depend on each other, and which ones is
mostly known before the first: where another core is free, some are made there.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import update_wrapper
from multiprocessing.connection import Connection
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Remembered(Generic[P, R]):
    """A function whose results are kept, and may come from the second process.

    Args:
        function: of hashable arguments; its results depend on nothing else, and can be pickled.
    """

    def __init__(self, function: Callable[P, R]) -> None:
        update_wrapper(self, function)
        self._function = function
        self._results: dict[Hashable, R] = {}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result, made here unless it is there or the other process has begun with it."""
        key = _key(args, kwargs)
        ahead = _AHEAD.get()
        if key not in self._results and (ahead is None or not ahead.brings(Call(self, args, kwargs))):
            self._results[key] = self._function(*args, **kwargs)
        return self._results[key]

    def keep(self, call: Call, result: Any) -> None:
        """Take a result that was made elsewhere."""
        self._results[_key(call.args, call.kwargs)] = result

    def cache_clear(self) -> None:
        """Forget all results."""
        self._results.clear()


class Call(NamedTuple):
    """A call of a remembered function."""

    function: Remembered[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def _key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
    return args, tuple(sorted(kwargs.items()))


@contextmanager
def made_ahead(calls: Sequence[Call]) -> Iterator[None]:
    """Inside, a second process makes calls, those first that come first, and leaves out what is being made here.

    Without a second core, or where processes cannot be forked, nothing is made ahead.

    Args:
        calls: likely to be needed; what was made for nothing is dropped.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if not calls or cores < 2 or sys.platform != "linux":
        yield
        return
    ahead = _Ahead(calls)
    token = _AHEAD.set(ahead)
    try:
        yield
    finally:
        _AHEAD.reset(token)
        ahead.stop()


class _Ahead:
    """The second process, and who makes what: a call belongs to the process that claims it first."""

    def __init__(self, calls: Sequence[Call]) -> None:
        forked = multiprocessing.get_context("fork")
        self._calls = list(calls)
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
                    results.send((number, call.function(*call.args, **call.kwargs)))
                except Exception:  # noqa: BLE001 -- the other process makes it again, and says what is wrong
                    results.send((number, None))

    def _claim(self, number: int) -> bool:
        with self._claimed.get_lock():
            free = not self._claimed[number]
            self._claimed[number] = 1
        return free

    def brings(self, call: Call) -> bool:
        """Whether a call was begun there; then its result is kept when this returns."""
        if call not in self._calls:
            return False
        number = self._calls.index(call)
        if self._claim(number):
            return False
        brought = False
        while not brought:
            try:
                other, result = self._results.recv()
            except EOFError:  # it is gone
                return False
            if result is not None:
                self._calls[other].function.keep(self._calls[other], result)
            brought = other == number
            if brought and result is None:
                return False
        return True

    def stop(self) -> None:
        """End it, whatever it is at."""
        self._process.kill()
        self._process.join()
        self._results.close()


_AHEAD: ContextVar[_Ahead | None] = ContextVar("_AHEAD", default=None)
