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
            found = profile(config, steps, trace, progress=progress)
    except StopNow:
        raise Interrupted("Interrupted before a step was measured.") from None
    if as_json:
        print_json(found.as_dict())
    else:
        describe(found)
    if found.interrupted:
        raise Interrupted(f"Interrupted after {found.steps} of {found.asked} steps; nothing was written.")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A line on stderr that changes, or a line for each kind of step where that is no terminal."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("loading") as status:
            yield lambda what, step, of: status.update(f"{what}, {step} of {of}" if of > 1 else what)
        return

    def say(what: str, step: int, of: int) -> None:
        if step == 1:
            print_line(f"{what}, {of} steps" if of > 1 else what, file=sys.stderr)

    yield say


def describe(found: Profile) -> None:
    """Print a profile."""
    show(parts_table(found))
    for line in sentences(found):
        print_line(line)
    show(held_table(found))
    if found.advice:
        print_line("What to change:")
        for advice in found.advice:
            print_line(f"- {advice}")
    else:
        print_line("What to change: nothing stands out.")
    if found.trace is not None:
        print_line(f"{found.trace}  a trace of one step; https://ui.perfetto.dev opens it")


def parts_table(found: Profile) -> Table:
    """A row a part of the step, and one for the whole of it."""
    gpu = found.device_type == "cuda"
    steps = f"{found.steps} step{'s' * (found.steps != 1)}"
    table = Table(title=f"A step of {found.batch} samples on {found.device}, {steps}", title_justify="left")
    table.add_column("part")
    for column in ("ms", "share", "kernels" if gpu else "calls", "of peak", "waits" if gpu else "reads"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("GiB" if gpu else "MiB", justify="right", no_wrap=True)
    for part in found.parts:
        table.add_row(*_cells(part, GIB if gpu else MIB))
    highest = max((part.memory or 0 for part in found.parts), default=0) or None
    whole = Part("a step", found.seconds, 1.0, found.launches, found.tflop, found.peak_share, found.waits, highest)
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


def sentences(found: Profile) -> Iterator[str]:
    """What the table does not say."""
    low, high = (f"{1e3 * value:,.1f}" for value in found.quartiles)
    spread = f" (half of them {low} to {high})" if found.steps > 1 else ""
    yield f"A step takes {1e3 * found.seconds:,.1f} ms{spread}: {found.images_per_second:,.1f} images a second."
    if found.tflop is not None and found.peak_rate is not None and found.peak_share is not None:
        yield (
            f"It computes {found.tflop:.3g} TFLOP, {found.peak_share:.1%} of what the device could in that time, "
            f"{found.peak_rate.rate / 1e12:,.3g} TFLOP/s ({found.peak_rate.source})."
        )
    if found.busy is not None:
        yield f"The GPU computes in {found.busy:.0%} of the step; the host waits for it in {found.waited or 0:.0%}."

    for place, count in list(found.waits_at.items())[:3]:
        yield f"{count} of the {'waits' if found.device_type == 'cuda' else 'reads'}: {place}"


def held_table(found: Profile) -> Table:
    """What stays in memory, by owner."""
    gpu = found.device_type == "cuda"
    unit, name = (GIB, "GiB") if gpu else (MIB, "MiB")
    table = Table(title="Memory that stays", title_justify="left")
    table.add_column("of")
    table.add_column(name, justify="right")
    for owner, count in found.held.items():
        table.add_row(owner, f"{count / unit:,.1f}")
    table.add_section()
    table.add_row("together", f"{sum(found.held.values()) / unit:,.1f}")
    table.add_row("peak of the GPU" if gpu else "peak of the process", f"{found.peak_memory / unit:,.1f}")
    return table
