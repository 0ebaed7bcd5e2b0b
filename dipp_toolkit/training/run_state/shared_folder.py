"""A run folder that several processes work for: the first writes it, all read it and write their part of checkpoints.

Every process goes through the whole run, pictures and report included, because under sharded weights each pass of a
network needs all of them. What the others write goes to a folder of their own that is removed with them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config import TrainConfig
from ...distributed import Processes
from ...errors import CheckpointError, DippError, Interrupted, RequestError, RunError
from ...utils.folder_lock import LOCK
from ..setup.assembly import Assembled
from .checkpoint import load_checkpoint
from .reserved_folder import taken_folder
from .run_folder import RunFolder

KINDS: dict[str, type[DippError]] = {kind.__name__: kind for kind in (RequestError, CheckpointError, RunError)}
NOT_COPIED = ("checkpoints", "final", ".*.partial", ".*.older", LOCK)
NO_LOCK = (
    "The file system of {folder} has no locks, so a second process is not kept out of it; let one at a time work there."
)


@dataclass(frozen=True)
class SharedFolder:
    """Where a process reads and writes.

    Attributes:
        run: the run's folder.
        own: where this process writes everything but checkpoints: the run's folder in the first.
        processes: those that share it.
        warnings: sentences about the folder.
    """

    run: RunFolder
    own: RunFolder
    processes: Processes
    warnings: tuple[str, ...] = ()

    @classmethod
    @contextmanager
    def opened(cls, config: TrainConfig, processes: Processes) -> Iterator[SharedFolder]:
        """The folder of a run, for the time of it; the first process takes it for all.

        Raises:
            RequestError: it cannot be used, see `taken_folder`.
        """
        if processes.main:
            with ExitStack() as stack:
                try:
                    run, lock = stack.enter_context(taken_folder(config))
                except (DippError, Interrupted) as error:
                    processes.first_says(_failure(error))
                    raise
                processes.first_says({"path": str(run.path)})
                yield cls(run, run, processes, () if lock.held else (NO_LOCK.format(folder=run.path),))
            return
        run = RunFolder(Path(_success(processes.first_says({}))["path"]))
        own = RunFolder(Path(tempfile.mkdtemp(prefix=f"dipp-process-{processes.rank}-")) / run.path.name)
        try:
            if config.resume:
                shutil.copytree(run.path, own.path, ignore=shutil.ignore_patterns(*NOT_COPIED))
            yield cls(run, own, processes)
        finally:
            shutil.rmtree(own.path.parent, ignore_errors=True)

    def state_to_go_on_from(self, config: TrainConfig) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest whole checkpoint's state, and what was wrong with newer ones; the first process verifies it.

        Raises:
            CheckpointError: see `RunFolder.load_for_resume`.
        """
        state: dict[str, Any] | None = None
        answer: dict[str, Any] = {}
        if self.processes.main:
            try:
                state, problems = self.run.load_for_resume(config)
                answer = {"step": None if state is None else state["step"], "problems": problems}
            except (DippError, Interrupted) as error:
                answer = _failure(error)
        outcome = _success(self.processes.first_says(answer))
        if not self.processes.main and outcome["step"] is not None:
            state = load_checkpoint(self.run.checkpoints / f"step-{outcome['step']:08d}", verify=False)
        return state, outcome["problems"]

    def check_begun(self, config: TrainConfig, parts: Assembled, step: int | None) -> list[str]:
        """Hold what is about to be trained with against what the run was begun with, and write it down.

        Args:
            config: the resolved settings.
            parts: assembled from them, nothing restored yet.
            step: the checkpoint's that the run goes on from; None where it begins.

        Returns:
            Sentences about what is another than at the beginning, and is no reason to refuse.

        Raises:
            CheckpointError: prompts, rewards or weights are other ones.
            RequestError: the folder cannot be written.
        """
        from .start_record import StartRecord

        answer: dict[str, Any] = {}
        if self.processes.main:
            try:
                now = StartRecord.of(config, parts)
                record = StartRecord.read(self.run) if step is not None else None
                begun = record.resumed(now, config, self.run, step or 0) if record is not None else now
                begun.write(self.run)
                answer = {"warnings": begun.warnings(now, config)}
            except (DippError, Interrupted) as error:
                answer = _failure(error)
            except OSError as error:
                text = f"Cannot write the run folder {self.run.path}: {error.strerror or error}."
                answer = _failure(RequestError(text))
        warnings: list[str] = _success(self.processes.first_says(answer))["warnings"]
        return warnings


def _failure(error: DippError | Interrupted) -> dict[str, Any]:
    kind = type(error).__name__
    return {"error": str(error), "kind": kind if kind in KINDS else RequestError.__name__}


def _success(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise KINDS[answer["kind"]](answer["error"])
    return answer
