"""A progress bar in notebooks and terminals: a listener of a run."""

from __future__ import annotations

import sys
from typing import Any

from ..errors import without_secrets
from ..events import MonitorEvent, RunEndEvent, RunStartEvent, StepEvent, WarmUpEvent
from ..utils.messages import number_text, short_name
from ..utils.packages import missing_of
from ..utils.python_words import in_python_words


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    return running is not None and hasattr(running, "kernel")


def is_watched() -> bool:
    """Whether somebody sees a bar: in a notebook, or where stderr is a terminal."""
    return in_notebook() or bool(getattr(sys.stderr, "isatty", bool)())


def _bar_class() -> Any:
    """tqdm's bar of widgets where a notebook has them, its bar of characters elsewhere."""
    if in_notebook() and not missing_of(["ipywidgets"]):
        from tqdm.notebook import tqdm as widgets

        return widgets
    from tqdm import tqdm

    return tqdm


class ProgressBar:
    """A bar over the run's steps, with rewards and divergence beside it; what a run warns of stands above it.

    Args:
        make: makes the bar, with tqdm's arguments; tqdm itself where None.
    """

    def __init__(self, make: Any = None):
        self._make = make or _bar_class()
        self._bar: Any = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def dipp_on_run_start(self, event: RunStartEvent) -> None:
        self._begin("training", event.config.steps, event.step)
        for sentence in (*event.licences, *event.notes, *(f"Warning: {warning}" for warning in event.warnings)):
            self._say(sentence)

    def dipp_on_warm_up(self, event: WarmUpEvent) -> None:
        if event.update == 1:
            self._begin("assistant warm-up", event.updates, 0)
        self._advance(event.update)
        if event.update == event.updates:
            self._close()

    def dipp_on_step(self, event: StepEvent) -> None:
        if self._bar is None or self._bar.total != event.steps:
            self._begin("training", event.steps, event.step - 1)
        numbers = {
            short_name(name.removeprefix("reward/")): number_text(value, ".3f")
            for name, value in event.metrics.items()
            if name.startswith("reward/")
        }
        if "divergence" in event.metrics:
            numbers["divergence"] = number_text(event.metrics["divergence"], ".3g")
        self._bar.set_postfix(numbers, refresh=False)
        self._advance(event.step)
        for reason in event.skipped:
            self._say(f"step {event.step} skipped: {reason}")
        if event.pull is not None and not event.pull.healthy:
            self._say(f"Warning: {event.pull}")
        for warning in event.warnings:
            self._say(f"Warning: {warning}")
        if event.step >= event.steps:
            self._bar.set_description("comparing before and after")

    def dipp_on_monitor(self, event: MonitorEvent) -> None:
        for warning in event.warnings:
            self._say(f"Warning at step {event.step}: {warning.text}")

    def dipp_on_run_end(self, event: RunEndEvent) -> None:
        if self._bar is not None:
            self._bar.set_description("done")
        self._close()

    def _begin(self, what: str, total: int, done: int) -> None:
        self._close()
        self._bar = self._make(desc=what, total=total, initial=done, unit="step", dynamic_ncols=True)

    def _advance(self, done: int) -> None:
        self._bar.update(done - self._bar.n)

    def _say(self, sentence: str) -> None:
        text = "".join(letter if letter.isprintable() else " " for letter in without_secrets(sentence))
        self._make.write(in_python_words(text), file=sys.stderr)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class WorkBar:
    """A bar for each piece of a bench's work; see `dipp_toolkit.experiments.bench.run.Listener`."""

    def __init__(self, make: Any = None):
        self._make = make or _bar_class()
        self._bar: Any = None

    def __enter__(self) -> WorkBar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def begin(self, what: str, total: int) -> None:
        self.__exit__()
        self._bar = self._make(desc=what, total=total, unit="image", dynamic_ncols=True)

    def advance(self, count: int) -> None:
        self._bar.update(count)
