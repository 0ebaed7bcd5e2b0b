"""From the first step to the last, a signal, a failure or a warning that ends the run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from ..errors import DippError, Interrupted, RunError
from ..events import CheckpointEvent, StepEvent, WarmUpEvent
from ..models import compilation
from ..monitoring.first_pull import FirstPulls
from ..utils.deterministic import missing_kernel
from ..utils.disk_errors import of_the_disk, reason_of, way_on
from ..utils.exception_text import raised
from ..utils.jsonl import MetricsFile
from .diagnose import Diagnoses
from .early_stop import Stop
from .guard import FileOfSkips
from .listeners import Broadcast
from .loop import TrainingLoop
from .monitor import Monitor
from .run_state.checkpoint import checkpoints
from .run_state.run_folder import FolderGone, RunFolder, resumed, saved, way_back

ASKING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, a scheduler, and a terminal that is closed; where the system has them."""


@dataclass
class Stepping:
    """The steps of a run with all that happens between them.

    Attributes:
        loop: makes the steps.
        stop: notes signals.
        broadcast: tells of everything.
        monitor: measures on held-out prompts now and then.
        diagnoses: diagnose the training now and then.
    """

    loop: TrainingLoop
    stop: StopRequest
    broadcast: Broadcast
    monitor: Monitor | None = None
    diagnoses: Diagnoses | None = None
    pulls: FirstPulls = field(init=False)
    metrics: MetricsFile = field(init=False)
    skips: FileOfSkips = field(init=False)
    saved: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        loop, folder = self.loop, self.loop.folder
        self.pulls = FirstPulls(loop.config)
        self.metrics, self.skips = MetricsFile(folder.metrics, loop.step), FileOfSkips(folder.skips, loop.step)
        self.saved = self._place

    @property
    def _place(self) -> tuple[int, int]:
        """What is to be saved where it has changed: updates of the warm-up, and of the generator."""
        return self.loop.warmed, self.loop.step

    def _sync(self) -> None:
        self.metrics.sync()
        self.skips.sync()

    def _tell(self, whole: Sequence[Path]) -> None:
        for path in whole:
            self.broadcast("dipp_on_checkpoint", CheckpointEvent(int(path.name.removeprefix("step-")), path))

    def _save(self, step_follows: bool = False) -> None:
        """Begin to write a checkpoint; it is told of once it is whole."""
        self.loop.folder.check_in_place()
        self.saved = self._place
        # Rows up to a checkpoint's step are on the disk before the checkpoint is.
        self._tell(self.loop.save_meanwhile(self._sync, step_follows))

    def save_last(self) -> None:
        """Be sure that this step is on the disk."""
        if self.saved != self._place:
            self._save()
        self._tell(self.loop.writer.wait())

    def _measure(self) -> Stop | None:
        loop, ended = self.loop, None
        if self.monitor is not None:
            if self.monitor.due(loop.step):
                self.broadcast("dipp_on_monitor", self.monitor.measure(loop.step))
            ended = self.monitor.stop(loop.step)
        if loop.processes.first_says(ended is not None):
            return ended or Stop(loop.step, (), loop.step, "")
        return None

    def run(self) -> Stop | None:
        """Step until something ends it; a warning that did is returned."""
        loop, config = self.loop, self.loop.config
        self._warm_up()
        if not loop.is_warm:
            self.save_last()
            return None
        for part in (self.monitor, self.diagnoses):
            if part is not None:
                part.open(loop.step)
        # Before the first step, and where a measurement failed in the run that is resumed.
        ended = self._measure()
        while loop.step < config.steps and ended is None and not loop.asked_to_stop(self.stop):
            self._step()
            ended = self._measure()
            self._tell(loop.writer.done())
            last = loop.step == config.steps or ended is not None
            if last or loop.step % config.checkpoint_every == 0:
                self._save(step_follows=not last)
        self.save_last()
        return ended

    def _warm_up(self) -> None:
        """The assistant's updates before the first step, until a signal comes; checkpoints as among steps."""
        loop = self.loop
        while not loop.is_warm and not loop.asked_to_stop(self.stop):
            loss = loop.warm_once()
            loop.folder.check_in_place()
            event = WarmUpEvent(loop.warmed, loop.warm_rounds, loss, tuple(loop.skipped))
            self.broadcast("dipp_on_warm_up", event)
            self._tell(loop.writer.done())
            if loop.warmed % loop.config.checkpoint_every == 0:
                self._save()

    def _step(self) -> None:
        loop, config = self.loop, self.loop.config
        earlier = self.diagnoses.before(loop.step + 1) if self.diagnoses is not None else None
        known = set(compilation.report().warnings())
        row = loop.one_step()
        new = tuple(sentence for sentence in compilation.report().warnings() if sentence not in known)
        loop.folder.check_in_place()
        self.metrics.write(row)
        self.skips.note(loop.step, loop.skipped)
        if self.diagnoses is not None:
            self.diagnoses.after(row, earlier)
        pull = self.pulls.check(loop.step, row)
        self.broadcast("dipp_on_step", StepEvent(loop.step, config.steps, row, tuple(loop.skipped), pull, new))
        if loop.step % config.sample_every == 0:
            loop.save_samples()

    def close(self) -> None:
        """Wait for the checkpoint under way and close every file."""
        self.loop.writer.close()
        for file in (self.metrics, self.skips, self.monitor, self.diagnoses):
            if file is not None:
                file.close()


def _failure(error: Exception) -> str:
    """What somebody's code raised, as a sentence."""
    operation = missing_kernel(error)
    if not operation:
        return f"The run failed with {raised(error)}."
    return (
        f"The run needs {operation}, which has no deterministic kernel on a GPU. With --set deterministic=false, added "
        "to the command, it goes on by the ordinary one: begun again from its seed, it then agrees with itself in its "
        "first digits only."
    )


def run_steps(
    loop: TrainingLoop,
    stop: StopRequest,
    broadcast: Broadcast,
    monitor: Monitor | None = None,
    diagnoses: Diagnoses | None = None,
) -> Stop | None:
    """Step until the last step, a signal, or a warning that ends the run; returns the latter.

    Raises:
        RunError: a step failed, or the disk; what was done up to then is saved where it can be.
        Interrupted: a signal arrived; everything is saved.
    """
    stepping: Stepping | None = None
    try:
        stepping = Stepping(loop, stop, broadcast, monitor, diagnoses)
        try:
            ended = stepping.run()
        except FolderGone:
            raise
        except DippError as error:
            stepping.save_last()
            raise with_way_back(error, loop) from error
        except OSError:
            raise
        except Exception as error:  # the code of a term, a generator or a plugin may raise anything
            stepping.save_last()
            raise with_way_back(RunError(_failure(error)), loop) from error
        if ended is None and loop.step < loop.config.steps:
            name = stop.signal.name if stop.signal is not None else "a signal to another process"
            raise Interrupted(
                f"Interrupted by {name} {loop.place}; everything is saved. {resumed(loop.checkpoints.parent)}"
            )
        return ended
    except FolderGone as error:
        raise _lost(error, loop) from error
    except OSError as error:
        _check_in_place(loop)
        whole = f" The last checkpoint in {loop.checkpoints} is whole." if checkpoints(loop.checkpoints) else ""
        way = way_on(error, way_back(loop.checkpoints.parent))
        place = f"after step {loop.step}" if loop.step or not loop.warmed else loop.place
        raise RunError(f"The run stopped {place}: {reason_of(error)}.{whole} {way}") from error
    finally:
        if stepping is not None:
            stepping.close()


def _check_in_place(loop: TrainingLoop) -> None:
    """Where the folder itself is gone, that is what there is to say.

    Raises:
        RunError: it is.
    """
    try:
        loop.folder.check_in_place()
    except FolderGone as error:
        raise _lost(error, loop) from error


def _lost(error: FolderGone, loop: TrainingLoop) -> RunError:
    return RunError(
        f"{error} It stopped {loop.place}; what was in no checkpoint is lost. If you "
        "moved it, go on with: dipp train --resume --out, and the folder's new name."
    )


def with_way_back(error: DippError, loop: TrainingLoop) -> RunError:
    """What stopped the run, and how to go on."""
    if not loop.step and not loop.warmed:
        return RunError(f"{error} The run stopped before its first step was done.")
    return RunError(f"{error} The run stopped {loop.place}; everything is saved. {way_back(loop.checkpoints.parent)}")


class StopNow(KeyboardInterrupt):
    """A signal ended the work where it was. No `except Exception` of anybody's code on the way swallows it."""


class StopRequest:
    """Notes SIGINT, SIGTERM and SIGHUP, so that the step under way is finished and saved; a second SIGINT ends it.

    Attributes:
        signal: the first that came.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A scheduler and a launcher may each send a SIGTERM of their own; who presses Ctrl-C twice means it.
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        first, self.signal = self.signal is None, self.signal or signal.Signals(number)
        if first and self._at_once:
            raise StopNow

    @contextmanager
    def noted(self) -> Iterator[StopRequest]:
        """Signals are noted inside this context, where Python allows it (the main thread).

        A SIGHUP that is ignored, as under nohup, stays ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        numbers = [getattr(signal, name) for name in ASKING if hasattr(signal, name)]
        ignored = {number for number in numbers if signal.getsignal(number) is signal.SIG_IGN} - {signal.SIGINT}
        before = {number: signal.signal(number, self._note) for number in numbers if number not in ignored}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def at_once(self, wanted: bool = True) -> Iterator[None]:
        """Signals end the work inside this context where it is; one that was noted before does so at its beginning.

        For work that loses nothing: what is done is saved, and what is not can be done again.

        Args:
            wanted: False where signals are to be noted here as well, because other processes share the work.

        Raises:
            StopNow: a signal came.
        """
        before, self._at_once = self._at_once, wanted
        try:
            if wanted and self.signal is not None:
                raise StopNow
            yield
        finally:
            self._at_once = before


@contextmanager
def reporting_stops(run: RunFolder, stop: StopRequest) -> Iterator[None]:
    """Inside this context, what ends a run outside of its steps is raised as a sentence that says how to resume.

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
    """The error of a run that a signal ended outside of its steps."""
    name = stop.signal.name if stop.signal is not None else "a signal to another process"
    if not run.config.is_file():
        return Interrupted(f"Interrupted by {name} before anything was written.")
    return Interrupted(f"Interrupted by {name}. {saved(run)} {resumed(run.path)}")
