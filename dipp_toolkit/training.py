"""The training run, top to bottom: assemble, compare before, step, checkpoint, export, compare after, report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .assembly import Assembled, assemble, resolve
from .attention import unfused_cpu_attention
from .broadcast import Broadcast
from .checkpoint import save_checkpoint
from .condition import Condition
from .config import TrainConfig
from .diagnostics.diagnose import Diagnoses
from .errors import DippError, Interrupted, RunError
from .events import CheckpointEvent, RunEndEvent, RunStartEvent, StepEvent
from .finishing import finish, start_comparison
from .generation import generate_images
from .hub import check_hub, push_to_hub
from .monitors.stopping import Stop
from .monitors.watch import Watch
from .pictures import save_grid
from .prompt_order import PromptOrder
from .run_folder import MetricsFile, RunFolder, choose_folder
from .sharing import load_trainable_state, trainable_state
from .step_metrics import divergence_of, peak_memory_mb, step_metrics
from .stop_request import StopRequest
from .trackers import Trackers

SAMPLES_IN_GRID = 16

MEASURED = ("seconds", "images_per_second", "memory_mb")
"""Metrics that are measurements of the machine; every other one is the same bits for the same seed."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run leaves: its folder, and what `summary.json` holds."""

    folder: Path
    summary: dict[str, Any]


def learning_rate(config: TrainConfig, step: int) -> float:
    """The generator's learning rate at an update, the first being 0.

    Rises linearly over `warmup` updates, holds, and falls linearly over the last `cooldown`; where both would rule, the
    lower one does. It is never 0 inside the run.
    """
    rising = (step + 1) / (config.warmup + 1)
    falling = (config.steps - step) / (config.cooldown + 1)
    return config.learning_rate * min(1.0, rising, falling)


class TrainingLoop:
    """Steps an assembled run and keeps its folder.

    Args:
        config: resolved settings.
        parts: the assembled run.
        folder: where it writes.
    """

    def __init__(self, config: TrainConfig, parts: Assembled, folder: RunFolder):
        self.config, self.parts, self.folder = config, parts, folder
        self.step, self.seconds = 0, 0.0
        self.assistant_loss: float | None = None
        """Of the step under way, once the assistant's updates are done; None between steps."""
        self.order = PromptOrder(len(parts.conditions), config.seed)

    def state_dict(self) -> dict[str, Any]:
        engine = self.parts.engine
        return {
            "step": self.step,
            "seconds": self.seconds,
            "assistant_loss": self.assistant_loss,
            "generator": trainable_state(self.parts.generator.network),
            "average": self.parts.average.state_dict(),
            "torch_random": torch.get_rng_state(),
            **engine.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        engine = self.parts.engine
        self.step, self.seconds = state["step"], state["seconds"]
        self.assistant_loss = state.get("assistant_loss")
        load_trainable_state(self.parts.generator.network, state["generator"])
        engine.load_state_dict(state)
        self.parts.average.load_state_dict(state["average"])
        torch.set_rng_state(state["torch_random"])

    def save(self) -> Path:
        """Write a checkpoint of this step and forget the oldest."""
        target = self.folder.checkpoints / f"step-{self.step:08d}"
        save_checkpoint(target, self.state_dict())
        self.folder.forget_old_checkpoints(self.config.keep_checkpoints)
        return target

    @property
    def warm_rounds(self) -> int:
        """The assistant's updates before the first step; none where no term looks at it."""
        return 0 if divergence_of(self.parts.engine.terms) is None else self.config.assistant_warmup

    def batches(self, step: int) -> list[Condition]:
        """The conditions of one step: a batch for each assistant round, then the generator's."""
        size, rounds = self.config.batch_size, self.parts.engine.assistant_rounds + 1
        position = (self.warm_rounds + step * rounds) * size
        return [self.parts.conditions[self.order.take(position + k * size, size)] for k in range(rounds)]

    def warm_assistant(self, stop: StopRequest) -> None:
        """The assistant's updates before the generator's first."""
        for k in range(self.warm_rounds):
            if stop.signal is not None:
                return
            rows = self.order.take(k * self.config.batch_size, self.config.batch_size)
            self.parts.engine.update_assistant(self.parts.conditions[rows])

    def one_step(self) -> dict[str, float]:
        """One generator update; returns its row of metrics."""
        started = time.perf_counter()
        for group in self.parts.engine.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        *earlier, last = self.batches(self.step)
        if self.assistant_loss is None:
            self.assistant_loss = self.parts.engine.update_assistants(earlier)
        with self.random_states_kept_on_failure():
            result = self.parts.engine.update_generator(last, self.step)
        assistant_loss, self.assistant_loss = self.assistant_loss, None
        self.parts.average.update()
        self.step += 1
        elapsed = time.perf_counter() - started
        self.seconds += elapsed
        row = {"step": float(self.step)} | step_metrics(result, assistant_loss, divergence_of(self.parts.engine.terms))
        measured = (self.seconds, self.config.batch_size / elapsed, peak_memory_mb(self.parts.device))
        return row | dict(zip(MEASURED, measured, strict=True)) | {"step": self.step}

    @contextmanager
    def random_states_kept_on_failure(self) -> Iterator[None]:
        """Where a term fails, a dead reward say, the state is as before the update: resuming repeats it to the bit."""
        engine = self.parts.engine
        before = engine.random.get_state(), torch.get_rng_state()
        try:
            yield
        except BaseException:
            engine.random.set_state(before[0])
            torch.set_rng_state(before[1])
            raise

    def save_samples(self) -> None:
        """The grid of fixed prompts and fixed noise as it is now, from the averaged weights."""
        chosen = self.parts.eval_conditions[:SAMPLES_IN_GRID]
        with self.parts.average.applied():
            images = generate_images(self.parts.generator, self.parts.reference, chosen, self.config.seed)
        save_grid(images, self.folder.samples / f"step-{self.step:08d}.png")


def train(config: TrainConfig, *, listeners: Sequence[object] = ()) -> RunResult:
    """Run a training, from settings to report.

    Args:
        config: settings; those left unset are filled from what the generator's plugin recommends.
        listeners: objects with any of the methods `dipp_on_run_start`, `dipp_on_step`, `dipp_on_monitor`,
            `dipp_on_checkpoint` and `dipp_on_run_end`; plugins' hooks of these names are called as well.

    Returns:
        The run's folder and summary.

    Raises:
        RequestError: the settings cannot be used; nothing has been written then.
        RunError: the run failed; its last checkpoint is whole.
        Interrupted: SIGINT or SIGTERM arrived; the run is saved.
    """
    config = resolve(config)
    folder = choose_folder(config)
    state, problems = folder.load_for_resume(config) if config.resume else (None, [])
    if config.push_to_hub is not None:
        check_hub(config.push_to_hub)
    extra = [Trackers(config.trackers)] if config.trackers else []
    torch.manual_seed(config.seed)
    parts = assemble(config)
    loop = TrainingLoop(config, parts, folder)
    broadcast = Broadcast([*listeners, *extra])
    folder.create(config)
    with StopRequest().noted() as stop, unfused_cpu_attention(parts.device, parts.reference.latent_shape):
        watch, diagnoses = Watch(config, parts, folder), Diagnoses(config, parts, folder)
        if state is None:
            start_comparison(parts, config, folder)
            broadcast("dipp_on_run_start", RunStartEvent(config, folder.path, 0))
            loop.save_samples()
            loop.warm_assistant(stop)
        else:
            loop.load_state_dict(state)
            broadcast("dipp_on_run_start", RunStartEvent(config, folder.path, loop.step))
        ended = _run_steps(loop, stop, broadcast, watch, diagnoses)
        summary = finish(parts, config, folder, loop.seconds, problems, ended)
    if config.push_to_hub is not None:
        summary["hub"] = push_to_hub(folder.final, config.push_to_hub)
    broadcast("dipp_on_run_end", RunEndEvent(folder.path, summary))
    return RunResult(folder.path, summary)


def _with_way_back(error: DippError, loop: TrainingLoop) -> RunError:
    """What stopped the run, and how to go on."""
    if not loop.step:
        return RunError(f"{error} The run stopped before its first step was done.")
    return RunError(
        f"{error} The run stopped after step {loop.step} of {loop.config.steps}; everything is saved. "
        f"Go on with: dipp train --resume --out {loop.folder.path}"
    )


def _run_steps(
    loop: TrainingLoop,
    stop: StopRequest,
    broadcast: Broadcast,
    watch: Watch | None = None,
    diagnoses: Diagnoses | None = None,
) -> Stop | None:
    """Step until the last step, a signal, or a warning that ends the run; returns the latter."""
    config, folder = loop.config, loop.folder
    metrics = MetricsFile(folder.metrics, loop.step)
    saved_step = loop.step if loop.step else -1

    def save() -> Path:
        nonlocal saved_step
        metrics.sync()
        saved_step = loop.step
        return loop.save()

    def look() -> Stop | None:
        if watch is None:
            return None
        if watch.due(loop.step):
            broadcast("dipp_on_monitor", watch.look(loop.step))
        return watch.stop(loop.step)

    def steps() -> Stop | None:
        # Before the first step, and where a look failed in the run that is resumed.
        ended = look()
        while loop.step < config.steps and stop.signal is None and ended is None:
            earlier = diagnoses.before(loop.step + 1) if diagnoses is not None else None
            row = loop.one_step()
            metrics.write(row)
            if diagnoses is not None:
                diagnoses.after(row, earlier)
            broadcast("dipp_on_step", StepEvent(loop.step, config.steps, row))
            if loop.step % config.sample_every == 0:
                loop.save_samples()
            ended = look()
            if loop.step % config.checkpoint_every == 0 or loop.step == config.steps or ended is not None:
                broadcast("dipp_on_checkpoint", CheckpointEvent(loop.step, save()))
        return ended

    try:
        for one in (watch, diagnoses):
            if one is not None:
                one.open(loop.step)
        try:
            ended = steps()
        except DippError as error:
            if loop.step and saved_step != loop.step:
                save()
            raise _with_way_back(error, loop) from error
        if ended is None and stop.signal is not None and loop.step < config.steps:
            if loop.step and saved_step != loop.step:
                save()
            raise Interrupted(
                f"Interrupted by {stop.signal.name} after step {loop.step} of {config.steps}; everything is saved. "
                f"Go on with: dipp train --resume --out {folder.path}"
            )
        return ended
    except OSError as error:
        raise RunError(
            f"The run stopped after step {loop.step}: {error}. The last checkpoint in {folder.checkpoints} is whole."
        ) from error
    finally:
        metrics.close()
        for one in (watch, diagnoses):
            if one is not None:
                one.close()
