"""What a person sees while images are made or scored: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .output import plain_line, print_line

if TYPE_CHECKING:
    from dipp_toolkit.experiments.bench.run import Listener


@contextmanager
def bench_progress(quiet: bool) -> Iterator[Listener]:
    """Progress on stderr: a bar on a terminal, a line for each piece of work elsewhere."""
    if quiet:
        from dipp_toolkit.experiments.bench.run import Silent  # imports torch

        yield Silent()
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield BenchLines()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield BenchBars(progress)


@dataclass
class BenchBars:
    """A listener that draws bars."""

    progress: Any
    task: Any = None

    def begin(self, what: str, total: int) -> None:
        what = plain_line(what)
        self.task = self.progress.add_task(what if total else f"{what}: nothing to do", total=total or 1)
        if not total:
            self.progress.advance(self.task, 1)

    def advance(self, count: int) -> None:
        self.progress.advance(self.task, count)


class BenchLines:
    """A listener that writes a line for each piece of work."""

    def begin(self, what: str, total: int) -> None:
        print_line(f"{what}: {total} to do" if total else f"{what}: nothing to do", file=sys.stderr)

    def advance(self, count: int) -> None: ...


@contextmanager
def score_progress(total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, or a plain line every tenth where that is no terminal or quiet was asked for."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        tenths = 0

        def say(done: int) -> None:
            nonlocal tenths
            if done == total or done * 10 // total > tenths:
                tenths = done * 10 // total
                print_line(f"{done} of {total} images scored", file=sys.stderr)

        yield say
        return
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("scoring", total=total)
        yield lambda done: bar.update(task, completed=done)
