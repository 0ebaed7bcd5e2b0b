"""Parts of a step are heard by who listens, in the main thread, and by nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from dipp_toolkit.utils.step_parts import heard_by, step_part


class Notes:
    """Writes down what begins and ends."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.lines.append(f"{name} begins")
        try:
            yield
        finally:
            self.lines.append(f"{name} ends")


@step_part("outer")
def outer(number: int) -> int:
    return inner("hps", number)


@step_part(lambda name, number: f"reward {name}")
def inner(name: str, number: int) -> int:
    return number + 1


def test_parts_nest_and_their_names_may_depend_on_what_is_called() -> None:
    notes = Notes()
    with heard_by(notes):
        assert outer(1) == 2
    assert notes.lines == ["outer begins", "reward hps begins", "reward hps ends", "outer ends"]


def test_nobody_hears_before_after_or_in_another_thread() -> None:
    notes = Notes()
    outer(1)
    with heard_by(notes):
        worker = Thread(target=outer, args=(1,))
        worker.start()
        worker.join()
    outer(1)
    assert notes.lines == []
