"""How a run that ended before its end goes on: what is saved, and the command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import Interrupted, RequestError, RunError
from ...utils.disk_errors import of_the_disk, reason_of, way_on
from ..stepping import StopNow, StopRequest
from .checkpoint import checkpoint_step, checkpoints
from .run_folder import RunFolder, is_unbegun


def resumed(folder: Path) -> str:
    """The command that goes on with the run in a folder, as a sentence."""
    return f"Go on with: dipp train --resume --out {shlex.quote(str(folder))}"


def way_back(folder: Path) -> str:
    """How to go on after a failure, which removes a folder that it leaves without a step."""
    try:
        unbegun = is_unbegun(folder)
    except RequestError:  # it cannot be read now
        unbegun = False
    return "Run the same command again." if unbegun else resumed(folder)


def saved(run: RunFolder) -> str:
    """Which step a run goes on from, as a sentence."""
    whole = checkpoints(run.checkpoints)
    if not whole:
        return "No step was saved yet."
    step = checkpoint_step(whole[-1])
    return f"Step {step} is saved." if step else "The assistant's warm-up is saved as far as it came."


@contextmanager
def told(run: RunFolder, stop: StopRequest) -> Iterator[None]:
    """What ends a run inside this context outside of its steps becomes a sentence with the way on.

    Raises:
        RunError: the disk is full, or the run's folder cannot be written.
        Interrupted: a signal ended it.
    """
    try:
        yield
    except OSError as error:
        if not of_the_disk(error, run.path):
            raise
        raise RunError(
            f"The run stopped: {reason_of(error)}. {saved(run)} {way_on(error, way_back(run.path))}"
        ) from error
    except StopNow:
        raise interrupted(run, stop) from None


def interrupted(run: RunFolder, stop: StopRequest) -> Interrupted:
    """What to say of a run that a signal ended outside of its steps."""
    name = stop.signal.name if stop.signal is not None else "a signal to another process"
    if not run.config.is_file():
        return Interrupted(f"Interrupted by {name} before anything was written.")
    return Interrupted(f"Interrupted by {name}. {saved(run)} {resumed(run.path)}")
