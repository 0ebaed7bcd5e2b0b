"""The training run, top to bottom: assemble, compare before, step, checkpoint, export, compare after, report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from ..config import TrainConfig
from ..distributed import Processes
from ..errors import CheckpointError, RunError
from ..events import RunEndEvent, RunStartEvent
from ..models import compilation
from ..utils.deterministic import deterministic_kernels
from ..utils.device import choose_device
from ..utils.reproducibility import random_states_kept, seed_everything
from .diagnose import Diagnoses
from .finishing import finish, start_comparison, start_comparison_again, unready_note
from .listeners import Broadcast, Trackers
from .loop import MEASURED, TrainingLoop, learning_rate
from .monitor import Monitor
from .publish import check_hub, push_to_hub
from .run_result import RunResult
from .run_state.shared_folder import SharedFolder
from .run_state.start_settings import as_begun
from .setup.assembly import assemble
from .setup.origins import licence_notices
from .setup.resolve import resolve, settle_compile, settle_precision
from .stepping import StopRequest, interrupted, reporting_stops, run_steps, with_way_back

__all__ = ["MEASURED", "RunResult", "TrainingLoop", "learning_rate", "train"]


def train(config: TrainConfig, *, listeners: Sequence[object] = (), processes: Processes | None = None) -> RunResult:
    """Run a training, from settings to report. Python's, numpy's and torch's random states are left as they were.

    Args:
        config: settings; those left unset are filled from what the generator's plugin recommends.
        listeners: objects with any of the methods `dipp_on_run_start`, `dipp_on_warm_up`, `dipp_on_step`,
            `dipp_on_monitor`, `dipp_on_checkpoint` and `dipp_on_run_end`; plugins' hooks of these names are called as
            well. Of several processes, only the first one's hear anything.
        processes: those that share the run; all that a launcher started where None.

    Returns:
        The run's folder and summary.

    Raises:
        RequestError: the settings cannot be used; nothing has been written then.
        RunError: the run failed; its last checkpoint, where there is one, is whole.
        Interrupted: SIGINT, SIGTERM or SIGHUP arrived; the run is saved.
    """
    config = resolve(config)
    compilation.forget_compilations()  # another run's in this process would be told of as this one's
    device = choose_device(config.device)
    processes = processes or Processes.launched(device)
    with ExitStack() as stack:
        stack.enter_context(random_states_kept(device))
        shared = stack.enter_context(SharedFolder.opened(config, processes))
        stack.enter_context(deterministic_kernels(device, config.deterministic))
        with StopRequest().noted() as stop, reporting_stops(shared.run, stop):
            summary, broadcast = _train(config, listeners, processes, shared, stop)
        if config.push_to_hub is not None and processes.main:
            summary["hub"] = push_to_hub(shared.own.final, config.push_to_hub)
        broadcast("dipp_on_run_end", RunEndEvent(shared.own.path, summary))
        processes.wait()
        return RunResult(shared.run.path, summary)


def _train(
    config: TrainConfig, listeners: Sequence[object], processes: Processes, shared: SharedFolder, stop: StopRequest
) -> tuple[dict[str, Any], Broadcast]:
    with stop.at_once():
        state, problems = shared.state_to_go_on_from(config) if config.resume else (None, [])
        problems = [*shared.warnings, *problems]
        if config.resume:
            config = as_begun(config, shared.own.saved_config())
        device = choose_device(config.device)
        why = "as the run was begun" if config.resume else "as asked"
        config, precision = settle_precision(config, device, processes, why)
        config, compiled = settle_compile(config, device, processes, why)
        loop, broadcast = _loaded(config, listeners, processes, shared)
        problems += shared.check_begun(config, loop.parts, None if state is None else state["step"])
    parts, folder = loop.parts, loop.folder
    folder.create(config)
    licences = tuple(licence_notices(config))
    # What several processes share they leave together, between its parts.
    with stop.at_once(processes.alone):
        monitor, diagnoses = Monitor(config, parts, folder), Diagnoses(config, parts, folder)
        if state is None:
            start_comparison(parts, config, folder)
            notes = tuple(filter(None, [compiled.note, unready_note(config, parts)]))
            start = RunStartEvent(config, folder.path, 0, precision, tuple(problems), licences, notes)
            broadcast("dipp_on_run_start", start)
            loop.save_samples()
            # Again, because libraries draw from them as they load.
            seed_everything(config.seed)
        else:
            problems += start_comparison_again(parts, config, folder)
            loop.load_state_dict(state)
            del state
            notes = tuple(filter(None, [compiled.note]))
            start = RunStartEvent(config, folder.path, loop.step, precision, tuple(problems), licences, notes)
            broadcast("dipp_on_run_start", start)
    ended = run_steps(loop, stop, broadcast, monitor, diagnoses)
    problems += compilation.report().warnings()

    def check() -> None:
        if loop.asked_to_stop(stop):
            raise interrupted(shared.run, stop)

    with stop.at_once(processes.alone):
        folder.check_in_place()
        try:
            return finish(parts, config, folder, loop.seconds, problems, ended, precision, check), broadcast
        except (RunError, CheckpointError) as error:
            raise with_way_back(error, loop) from error


def _loaded(
    config: TrainConfig, listeners: Sequence[object], processes: Processes, shared: SharedFolder
) -> tuple[TrainingLoop, Broadcast]:
    """All that a run needs, and those who hear of it."""
    if config.push_to_hub is not None and processes.main:
        check_hub(config.push_to_hub)
    extra = [Trackers(config.trackers)] if config.trackers and processes.main else []
    seed_everything(config.seed)
    loop = TrainingLoop(config, assemble(config, processes), shared.own, shared.run.checkpoints)
    return loop, Broadcast([*listeners, *extra], processes.main)
