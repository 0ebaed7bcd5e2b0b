"""`dipp`, ended by SIGKILL at a chosen moment of a chosen phase of a training; see `run.py` beside it.

    python benchmarks/kill_resume/killed_in_phase.py PHASE MOMENT NOTES RUN train --out RUN ...

A phase is what goes on inside some functions of the toolkit, of those that are open the innermost. Its moments are when
they begin and end, when one of its lines has been appended by half and as a whole, and whenever, inside of them, a file
below RUN is opened to be written, or one or a folder is made, renamed or removed: Python's own audit events tell. At
the chosen one, counted from 1 in this process, the process kills itself. NOTES gets what it was, or at the end of a run
that was not killed how many moments every phase had, `{"looks": 24, ...}`, and how many its first time had.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

PHASES: dict[str, tuple[str, ...]] = {
    "load": (
        "dipp_toolkit.training.run:_loaded",
        "dipp_toolkit.training.run:assemble",
        "dipp_toolkit.training.run_state.run_folder:RunFolder.create",
    ),
    "monitors' bases": (
        "dipp_toolkit.training.monitor:Monitor._bases",
        "dipp_toolkit.training.monitor:Monitor._reference",
    ),
    "start comparison": ("dipp_toolkit.training.run:start_comparison",),
    "samples": ("dipp_toolkit.training.loop:TrainingLoop.save_samples",),
    "steps": ("dipp_toolkit.training.stepping:Stepping._step", "dipp_toolkit.training.loop:TrainingLoop.one_step"),
    "looks": ("dipp_toolkit.training.monitor:Monitor.measure",),
    "diagnoses": ("dipp_toolkit.training.diagnose:Diagnoses._write",),
    "checkpoints": (
        "dipp_toolkit.training.stepping:Stepping._save",
        "dipp_toolkit.training.run_state.checkpoint_writer:CheckpointWriter._write",
    ),
    "export": ("dipp_toolkit.training.finishing:save_generator",),
    "comparison": ("dipp_toolkit.training.run:finish",),
    "summary": ("dipp_toolkit.training.finishing:write_model_card", "dipp_toolkit.training.finishing:write_text"),
    "report": ("dipp_toolkit.report:write_report",),
}
LINES = "dipp_toolkit.utils.jsonl:MetricsFile.write"
"""Appends a line to a file of rows."""
TOUCHES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR


class Moments:
    """Counts the moments of phases, and ends the process at one.

    Args:
        phase: the one in which it ends.
        chosen: the moment of it, from 1; none where 0.
        notes: the file that is told.
        run: the run's folder.
    """

    def __init__(self, phase: str, chosen: int, notes: Path, run: Path):
        self.phase, self.chosen, self.notes, self.run = phase, chosen, notes, f"{run}{os.sep}"
        self.counts: Counter[str] = Counter()
        self.first: dict[str, int] = {}
        self.open = threading.local()
        self.noting = False

    def within(self, phase: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, as a part of a phase."""

        @functools.wraps(work)
        def wrapped(*given: Any, **named: Any) -> Any:
            names = self.open.__dict__.setdefault("names", [])
            names.append(phase)
            self.note("begins")
            try:
                result = work(*given, **named)
                self.note("is done")
                if phase not in names[:-1]:
                    self.first.setdefault(phase, self.counts[phase])
                return result
            finally:
                names.pop()

        return wrapped

    def note(self, what: str) -> None:
        """A moment of the innermost open phase."""
        if self.is_now(what):
            os.kill(os.getpid(), signal.SIGKILL)

    def is_now(self, what: str) -> bool:
        """Whether this is the chosen moment, which is noted then."""
        names = self.open.__dict__.get("names")
        if not names or self.noting:
            return False
        self.counts[names[-1]] += 1
        if names[-1] != self.phase or self.counts[names[-1]] != self.chosen:
            return False
        self.noting = True
        self.notes.write_text(json.dumps({"moment": what}), encoding="utf-8")
        return True

    def audited(self, event: str, about: tuple[Any, ...]) -> None:
        """An audit event of Python."""
        if event not in TOUCHES or (event == "open" and not (isinstance(about[2], int) and about[2] & WRITING)):
            return
        path = os.fsdecode(about[0]) if isinstance(about[0], str | bytes | os.PathLike) else ""
        if path.startswith(self.run):
            self.note(f"{event} {path}")

    def torn(self, write: Callable[..., None]) -> Callable[..., None]:
        """`MetricsFile.write`, which may be ended in the middle of a line."""

        @functools.wraps(write)
        def wrapped(lines: Any, row: Any) -> None:
            if self.is_now(f"half a line of {lines.path}"):
                line = json.dumps(dict(row)).encode()
                os.write(lines._file.fileno(), line[: len(line) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            write(lines, row)
            self.note(f"a line of {lines.path}")

        return wrapped


def located(place: str) -> tuple[Any, str]:
    """What holds a function, and by which name: `module:Class.name` or `module:name`."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    return functools.reduce(getattr, owners, importlib.import_module(module)), name


def watch(moments: Moments) -> None:
    """Put the counting around every function of every phase."""
    for phase, places in PHASES.items():
        for place in places:
            owner, name = located(place)
            setattr(owner, name, moments.within(phase, getattr(owner, name)))
    owner, name = located(LINES)
    setattr(owner, name, moments.torn(getattr(owner, name)))
    sys.addaudithook(moments.audited)


def main() -> int:
    phase, chosen, notes, run, *words = sys.argv[1:]
    moments = Moments(phase, int(chosen), Path(notes), Path(run))
    watch(moments)
    from dipp_cli.app import main as dipp

    code = dipp(words)
    moments.noting = True
    counts = {name: {"all": moments.counts[name], "first": moments.first.get(name, 0)} for name in PHASES}
    with contextlib.suppress(FileNotFoundError):
        Path(notes).write_text(json.dumps(counts), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
