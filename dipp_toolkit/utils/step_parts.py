"""The parts of a training step by name, for whoever measures time, memory and operations by part.

Functions of the engine and of the terms are marked with the part they are. Unless something is listening, a mark costs
one look at a list. Parts nest; what is measured belongs to the innermost one. A part may be named in the main
thread only: a worker's calls, such as a prefetched batch, run beside the step and belong to nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import ParamSpec, Protocol, TypeVar, runtime_checkable

P = ParamSpec("P")
R = TypeVar("R")

SAMPLES = "generator, no graph"
ASSISTANT = "assistant, training"
"""Forward and backward."""
GENERATOR = "generator, forward"
REFERENCE = "reference"
ASSISTANT_READ = "assistant, no graph"
DECODER = "decoder"
"""Forward and backward, of all rewards."""
REWARD = "reward"
"""Forward and backward of one; a part's name is this and the reward's, as in `reward hps`."""
BACKWARD = "generator, backward"
UPDATES = "optimisers and average"
"""And clipping."""
OBJECTIVE = "objective, the rest"
REST = "everything else"

PARTS = (SAMPLES, ASSISTANT, GENERATOR, REFERENCE, ASSISTANT_READ, DECODER, REWARD, BACKWARD, UPDATES, OBJECTIVE, REST)
"""In the order of a step."""


@runtime_checkable
class PartListener(Protocol):
    """Hears of the parts of a step."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """A part begins and ends with the context."""


_listening: list[PartListener] = []


@contextmanager
def heard_by(listener: PartListener) -> Iterator[None]:
    """Inside, a listener hears of every part that the main thread runs; of several, the one that came last."""
    _listening.append(listener)
    try:
        yield
    finally:
        _listening.pop()


def step_part(name: str | Callable[..., str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Marks a function as a part of a step.

    Args:
        name: the part's, or what makes it of the function's arguments.
    """

    def mark(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def marked(*arguments: P.args, **options: P.kwargs) -> R:
            if not _listening or threading.current_thread() is not threading.main_thread():
                return function(*arguments, **options)
            with _listening[-1].part(name if isinstance(name, str) else name(*arguments, **options)):
                return function(*arguments, **options)

        return marked

    return mark
