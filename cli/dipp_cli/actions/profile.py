"""What `dipp profile` does: measure a few steps of a run, and show where their time and memory go."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dipp_toolkit.config import TrainConfig
from dipp_toolkit.errors import Interrupted
from dipp_toolkit.experiments.profile.run import Part, Profile, profile
from dipp_toolkit.training.stepping import StopNow
from dipp_toolkit.utils.messages import short_name
from dipp_toolkit.utils.step_parts import REWARD

from ..terminal.output import print_json, print_line, quiet_stdout
from ..terminal.tables import show

MIB, GIB = 2**20, 2**30


def run(config: TrainConfig, steps: int, trace: Path | None, as_json: bool) -> None:
    """Profile, then print the tables or the JSON object.

    Raises:
        DippError: as `profile` does.
        Interrupted: a signal came; what had been measured is shown.
    """
    try:
        with quiet_stdout(), _progress() as progress:
            result = profile(config, steps, trace, progress=progress)
    except StopNow:
        raise Interrupted("Interrupted before a step was measured.") from None
    if as_json:
        print_json(result.as_dict())
    else:
        describe(result)
    if result.interrupted:
        raise Interrupted(f"Interrupted after {result.steps} of {result.asked} steps; nothing was written.")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A line on stderr that changes, or a line for each kind of step where that is not a terminal."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("loading") as status:
            yield lambda what, step, of: status.update(f"{what}, {step} of {of}" if of > 1 else what)
        return

    def say(what: str, step: int, of: int) -> None:
        if step == 1:
            print_line(f"{what}, {of} steps" if of > 1 else what, file=sys.stderr)

    yield say


def describe(result: Profile) -> None:
    """Print a profile."""
    show(parts_table(result))
    for line in sentences(result):
        print_line(line)
    show(held_table(result))
    if result.advice:
        print_line("What to change:")
        for advice in result.advice:
            print_line(f"- {advice}")
    else:
        print_line("What to change: nothing stands out.")
    if result.trace is not None:
        print_line(f"{result.trace}  a trace of one step; https://ui.perfetto.dev opens it")


def parts_table(result: Profile) -> Table:
    """A row a part of the step, and one for the whole of it."""
    gpu = result.device_type == "cuda"
    steps = f"{result.steps} step{'s' * (result.steps != 1)}"
    table = Table(title=f"A step of {result.batch} samples on {result.device}, {steps}", title_justify="left")
    table.add_column("part")
    for column in ("ms", "share", "kernels" if gpu else "calls", "of peak", "waits" if gpu else "reads"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("GiB" if gpu else "MiB", justify="right", no_wrap=True)
    for part in result.parts:
        table.add_row(*_cells(part, GIB if gpu else MIB))
    highest = max((part.memory or 0 for part in result.parts), default=0) or None
    counts = (result.launches, result.tflop, result.peak_share, result.waits)
    whole = Part("a step", result.seconds, 1.0, 1.0, *counts, highest)
    table.add_section()
    table.add_row(*_cells(whole, GIB if gpu else MIB))
    return table


def _cells(part: Part, unit: int) -> Iterator[str]:
    reward = part.name.startswith(REWARD)
    yield f"{REWARD} {short_name(part.name.removeprefix(f'{REWARD} '))}" if reward else part.name
    yield f"{1e3 * part.seconds:,.1f}"
    yield f"{part.share:.0%}"
    yield "" if part.launches is None else f"{part.launches:,}"
    yield "" if part.peak_share is None else f"{part.peak_share:.1%}"
    yield "" if part.waits is None else f"{part.waits}"
    yield "" if part.memory is None else f"{part.memory / unit:,.1f}"


def sentences(result: Profile) -> Iterator[str]:
    """What the table does not say."""
    low, high = (f"{1e3 * value:,.1f}" for value in result.quartiles)
    spread = f" (half of them {low} to {high})" if result.steps > 1 else ""
    yield f"A step takes {1e3 * result.seconds:,.1f} ms{spread}: {result.images_per_second:,.1f} images a second."
    if result.tflop is not None and result.peak_rate is not None and result.peak_share is not None:
        yield (
            f"It computes {result.tflop:.3g} TFLOP, {result.peak_share:.1%} of the device's peak, "
            f"{result.peak_rate.rate / 1e12:,.3g} TFLOP/s ({result.peak_rate.source})."
        )
    if result.busy is not None:
        yield f"The GPU is busy for {result.busy:.0%} of the step; the host waits for it for {result.waited or 0:.0%}."
    for place, count in list(result.waits_at.items())[:3]:
        yield f"{count} of the {'waits' if result.device_type == 'cuda' else 'reads'} at {place}"


def held_table(result: Profile) -> Table:
    """What stays in memory, by owner."""
    gpu = result.device_type == "cuda"
    unit, name = (GIB, "GiB") if gpu else (MIB, "MiB")
    table = Table(title="Memory that stays", title_justify="left")
    table.add_column("of")
    table.add_column(name, justify="right")
    for owner, count in result.held.items():
        table.add_row(owner, f"{count / unit:,.1f}")
    table.add_section()
    table.add_row("together", f"{sum(result.held.values()) / unit:,.1f}")
    table.add_row("peak of the GPU" if gpu else "peak of the process", f"{result.peak_memory / unit:,.1f}")
    return table
