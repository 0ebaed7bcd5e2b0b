"""What a person sees while a run goes on: a bar with the numbers that matter, or a plain line now and then."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from dipp_toolkit.events import FirstPull, MonitorEvent, RunStartEvent, StepEvent, WarmUpEvent
from dipp_toolkit.utils.messages import number_text, short_name

from .long_run import LongRun
from .output import is_first_process, plain_line, print_line

COMPARING = "comparing before and after, writing the report"


class ProgressListener(Protocol):
    """A listener of a run that is also a context, so that the terminal is left tidy whatever happens."""

    def __enter__(self) -> ProgressListener:
        """Begin to show."""

    def __exit__(self, *exception: object) -> None:
        """Stop showing."""


def numbers(metrics: Mapping[str, float]) -> str:
    """The numbers of one step that matter while one watches: rewards, divergence, speed."""
    parts = [
        f"{short_name(name.removeprefix('reward/'))} {number_text(value, '.3f')}"
        for name, value in metrics.items()
        if name.startswith("reward/")
    ]
    if "divergence" in metrics:
        parts.append(f"divergence {number_text(metrics['divergence'], '.4g')}")
    if "images_per_second" in metrics:
        speed = metrics["images_per_second"]
        parts.append(f"{speed:.1f} images/s" if speed < 10 else f"{speed:.0f} images/s")
    return "  ".join(parts)


def skipped_line(step: int, reason: str) -> str:
    """Why an update of a step was not made."""
    return f"step {step} skipped: {reason}"


def pull_line(pull: FirstPull) -> str:
    """How hard the rewards pull, as a warning where one side decides alone."""
    return str(pull) if pull.healthy else f"Warning: {pull}"


def held_out(event: MonitorEvent) -> str:
    """One check of the monitors in a line: how far every reward has moved from the start, diversity, warnings."""
    parts = [
        f"{short_name(name)} {number_text(reward['mean'], '.3f')}"
        + (f" ({number_text(reward['change']['mean'], '+.3f')})" if event.step else "")
        for name, reward in event.numbers["rewards"].items()
    ]
    if event.step and "diversity" in event.numbers:
        parts.append(f"diversity {event.numbers['diversity']['share']:.2f} of the start")
    parts.append(f"saturation {event.numbers['saturation']['mean']:.3f}")
    parts += [f"warning: {warning.name}" for warning in event.warnings]
    return f"held out at step {event.step}  {'  '.join(parts)}"


def warm_up_line(event: WarmUpEvent) -> str:
    """How far the assistant's warm-up is."""
    return f"assistant warm-up {event.update}/{event.updates}  loss {number_text(event.loss, '.4g')}"


class _TwoLineProgress(Progress):
    """A progress bar with the step's numbers and the monitors' under it, which would not fit beside it."""

    line = ""
    monitored = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        for line in filter(None, (self.line, self.monitored)):
            yield Text(plain_line(line), style="cyan", overflow="ellipsis", no_wrap=True)


class Bar:
    """A live bar on a terminal.

    Args:
        console: of stderr.
    """

    def __init__(self, console: Console):
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
        ]
        self._progress = _TwoLineProgress(*columns, console=console)
        self._task: TaskID | None = None
        self._steps = 0
        self._warming = False
        self._long_run = LongRun()

    def __enter__(self) -> Bar:
        self._progress.start()
        self._task = self._progress.add_task("loading", total=None)
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.live.transient = not self._progress.line  # a bar that never moved is wiped away
        self._progress.stop()

    def dipp_on_run_start(self, event: RunStartEvent) -> None:
        if event.precision is not None:  # stays above the bar
            self._progress.console.print(
                Text(str(event.precision), style="yellow" if event.precision.slowdown > 1 else "")
            )
        for licence in event.licences:
            self._progress.console.print(Text(plain_line(licence)))
        for note in event.notes:
            self._progress.console.print(Text(plain_line(note)))
        for warning in event.warnings:
            self._progress.console.print(Text(f"Warning: {warning}", style="yellow"))
        self._steps = event.config.steps
        self._begin("training", self._steps, event.step)
        self._long_run.begins(event)

    def dipp_on_warm_up(self, event: WarmUpEvent) -> None:
        for reason in event.skipped:  # stays above the bar
            self._progress.console.print(
                Text(plain_line(f"warm-up {skipped_line(event.update, reason)}"), style="yellow")
            )
        if not self._warming:
            self._warming = True
            self._begin("assistant warm-up", event.updates)
        if self._task is not None:
            self._progress.update(self._task, completed=event.update)
        if event.update == event.updates:
            self._warming = False
            self._begin("training", self._steps)

    def _begin(self, what: str, total: int, completed: int = 0) -> None:
        """A new task in the place of the last: its estimate of the time left must not know how long that took."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(what, total=total, completed=completed)

    def dipp_on_step(self, event: StepEvent) -> None:
        if self._task is None:
            return
        self._progress.line = numbers(event.metrics)
        for reason in event.skipped:  # stays above the bar
            self._progress.console.print(Text(plain_line(skipped_line(event.step, reason)), style="yellow"))
        for warning in event.warnings:
            self._progress.console.print(Text(plain_line(f"Warning: {warning}"), style="yellow"))
        if event.pull is not None:
            self._progress.console.print(Text(pull_line(event.pull), style="" if event.pull.healthy else "yellow"))
        notice = self._long_run.after(event)
        if notice:
            self._progress.console.print(Text(notice))
        self._progress.update(self._task, completed=event.step, total=event.steps)
        if event.step >= event.steps:
            self._progress.update(self._task, description=COMPARING)

    def dipp_on_monitor(self, event: MonitorEvent) -> None:
        self._progress.monitored = held_out(event)
        if event.warnings:  # stays above the bar, where the next check does not overwrite it
            self._progress.console.print(Text(plain_line(held_out(event)), style="yellow"))
        if event.stop and self._task is not None:
            self._progress.update(self._task, description=f"stopped early, {COMPARING}")


class PlainLines:
    """A line every tenth of the run, for logs and quiet terminals."""

    def __init__(self) -> None:
        self._started = monotonic()
        self._first = 0
        self._long_run = LongRun()

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, *exception: object) -> None:
        sys.stderr.flush()

    def _say(self, line: str) -> None:
        print_line(line, file=sys.stderr)

    def dipp_on_run_start(self, event: RunStartEvent) -> None:
        self._started, self._first = monotonic(), event.step
        self._say(f"{event.folder}: {'resuming at step ' + str(event.step) if event.step else 'starting'}")
        if event.precision is not None:
            self._say(str(event.precision))
        for licence in event.licences:
            self._say(licence)
        for note in event.notes:
            self._say(note)
        for warning in event.warnings:
            self._say(f"Warning: {warning}")
        self._long_run.begins(event)

    def dipp_on_warm_up(self, event: WarmUpEvent) -> None:
        for reason in event.skipped:
            self._say(f"warm-up {skipped_line(event.update, reason)}")
        self._started = monotonic()  # the time left is estimated from its steps
        if event.update % max(event.updates // 10, 1) == 0 or event.update == event.updates:
            self._say(warm_up_line(event))

    def dipp_on_step(self, event: StepEvent) -> None:
        for reason in event.skipped:
            self._say(skipped_line(event.step, reason))
        for warning in event.warnings:
            self._say(f"Warning: {warning}")
        if event.pull is not None:
            self._say(pull_line(event.pull))
        notice = self._long_run.after(event)
        if notice:
            self._say(notice)
        tenth = max(event.steps // 10, 1)
        if event.step % tenth and event.step != event.steps:
            return
        elapsed = monotonic() - self._started
        left = elapsed / max(event.step - self._first, 1) * (event.steps - event.step)
        self._say(f"step {event.step}/{event.steps}  {numbers(event.metrics)}  {elapsed:.0f} s, {left:.0f} s left")
        if event.step == event.steps:
            self._say(f"{COMPARING} ...")

    def dipp_on_monitor(self, event: MonitorEvent) -> None:
        self._say(held_out(event))
        if event.stop:
            self._say(f"stopped early, {COMPARING} ...")


class Silent:
    """Shows nothing: another process does."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *exception: object) -> None:
        return None


def listener(quiet: bool) -> ProgressListener:
    """A bar where stderr is a terminal, plain lines elsewhere and when asked to be quiet."""
    if not is_first_process():
        return Silent()
    console = Console(stderr=True)
    return PlainLines() if quiet or not console.is_terminal else Bar(console)
