"""The steps of a run, and everything that a resumed run needs of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from ..config import TrainConfig
from ..diffusion.condition import Condition
from ..distributed import Processes
from ..models.sampling import generate_images
from ..models.weight_sharing import load_trainable_state, trainable_state
from ..objective.base import uses_assistant
from ..objective.evaluate import WeightedTerm
from ..objective.result import metric_name
from ..prompts.cache import CachedConditions
from ..prompts.sampler import NoisesOfPrompts, PromptOrder
from ..protocols import EncoderReference
from ..utils.device import peak_memory_mb
from ..utils.images import save_grid
from ..utils.reproducibility import random_states, random_states_kept, restore_random_states
from .engine import KeptSamples, ObjectiveResult
from .run_state.checkpoint_writer import CheckpointWriter, nothing
from .run_state.host_copies import host_copies
from .run_state.run_folder import RunFolder
from .setup.assembly import Assembled, images_compared, noises_needed

SAMPLES_IN_GRID = 16
WARM_UPS = "updates of the assistant's warm-up"

MEASURED = ("seconds", "images_per_second", "memory_mb")
"""Metrics that are measurements of the machine; every other one is the same bits for the same seed."""


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
        checkpoints: where checkpoints go; the folder's own place where None.
    """

    def __init__(self, config: TrainConfig, parts: Assembled, folder: RunFolder, checkpoints: Path | None = None):
        self.config, self.parts, self.folder = config, parts, folder
        self.checkpoints = checkpoints or folder.checkpoints
        self.step, self.seconds = 0, 0.0
        self.warmed = 0
        """Updates of the assistant's warm-up that are done."""
        self.taken = 0
        """Prompts that all processes together have taken from the order."""
        self.noises: NoisesOfPrompts | None = None
        """How the generator's batches are made of prompts; settled at the first step."""
        self.assistant_loss: float | None = None
        """Of the step under way, once the assistant's updates are done; None between steps."""
        self.kept_positions: list[int] = []
        """Places in the order of the prompts of the generator update before, whose samples are kept."""
        self.skipped: list[str] = []
        """Why updates of the last step were not made."""
        self.order = PromptOrder(len(parts.conditions), config.seed)
        self.processes = parts.engine.processes
        self.writer = CheckpointWriter(self.processes, self._forget_old, host_copies(parts.device))
        parts.engine.before_change = self.writer.before_change

    def state_dict(self) -> dict[str, Any]:
        engine = self.parts.engine
        return {
            "step": self.step,
            "seconds": self.seconds,
            "warmed": self.warmed,
            "taken": self.taken,
            "noises": {} if self.noises is None else self.noises.state_dict(),
            "assistant_loss": self.assistant_loss,
            "generator": trainable_state(self.parts.generator.network),
            "average": self.parts.average.state_dict(),
            "process_random": random_states(self.parts.device),
            **self._kept_state(),
            **engine.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        engine = self.parts.engine
        self.step, self.seconds = state["step"], state["seconds"]
        self.warmed, self.taken = state["warmed"], state["taken"]
        self.noises = NoisesOfPrompts.from_state(state["noises"]) if state.get("noises") else None
        self.assistant_loss = state["assistant_loss"]
        load_trainable_state(self.parts.generator.network, state["generator"])
        engine.load_state_dict(state)
        self.parts.average.load_state_dict(state["average"])
        self._load_kept(state.get("kept"))
        restore_random_states(state["process_random"], self.parts.device)

    def _kept_state(self) -> dict[str, Any]:
        """The samples that the assistant's next update learns from, of all processes, and where their prompts stand."""
        kept = self.parts.engine.kept
        return {} if kept is None else {"kept": {"samples": kept.whole, "positions": self.kept_positions}}

    def _load_kept(self, state: Mapping[str, Any] | None) -> None:
        engine = self.parts.engine
        engine.kept, self.kept_positions = None, []
        if state is not None and engine.reuse_samples and len(state["positions"]) == self.batch:
            self.kept_positions = list(state["positions"])
            whole = state["samples"].to(self.parts.device)
            engine.kept = KeptSamples(whole, self._take(self.kept_positions, self.step - 1))

    def _forget_old(self) -> None:
        self.folder.forget_old_checkpoints(self.config.keep_checkpoints)

    def save(self) -> Path:
        """Write a checkpoint of this step, whole on disk when this returns, and forget the oldest.

        Raises:
            OSError: the disk is full or the folder cannot be written; older checkpoints are whole.
        """
        self.save_meanwhile()
        return self.writer.wait()[0]

    def save_meanwhile(self, before: Callable[[], None] = nothing, step_follows: bool = False) -> list[Path]:
        """Begin to write a checkpoint of this step; returns the one before it, where that became whole only now.

        Args:
            before: called before anything is written, in the thread that writes.
            step_follows: whether nothing changes the state before the engine's next update does. A GPU then begins that
                update while it still copies the state.

        Raises:
            OSError: that one could not be written.
        """
        earlier = self.writer.submit(self.checkpoints / f"step-{self.step:08d}", self.state_dict(), before)
        if not step_follows:
            self.writer.before_change()
        return earlier

    @property
    def warm_rounds(self) -> int:
        """The assistant's updates before the first step; none where no term uses it."""
        return 0 if divergence_of(self.parts.engine.terms) is None else self.config.assistant_warmup

    @property
    def batch(self) -> int:
        """Samples of an update in all processes together."""
        return self.config.batch_size * self.config.accumulation * self.processes.count

    def _rows(self, positions: Sequence[int]) -> list[int]:
        """This process's prompts of an update whose whole batch has those at these places of the order."""
        size, count = self.config.batch_size, self.processes.count
        own: list[int] = []
        for k in range(self.config.accumulation):
            start = (k * count + self.processes.rank) * size
            own += positions[start : start + size]
        return self.order.at(own)

    def _take(self, positions: Sequence[int], update: int) -> Condition:
        """This process's conditions of an update whose whole batch has the prompts at these places of the order.

        Args:
            positions: the places.
            update: number of the generator's update, which decides the size of the batch; see `Buckets.of_update`.
        """
        condition, buckets = self.parts.conditions[self._rows(positions)], self.parts.buckets
        if buckets is None:
            return condition
        return cast(EncoderReference, self.parts.reference).at_size(condition, buckets.of_update(update))

    def _expect(self, batches: Sequence[Sequence[int]]) -> None:
        """These batches are taken next: they are read meanwhile, where they are on a disk."""
        conditions = self.parts.conditions
        if isinstance(conditions, CachedConditions):
            conditions.expect([self._rows(positions) for positions in batches])

    def _assistant_places(self, taken: int, rounds: int) -> list[range]:
        """Places in the order of the assistant's updates once so many prompts are taken, one a sample."""
        return [range(start, start + self.batch) for start in range(taken, taken + rounds * self.batch, self.batch)]

    def settle_noises(self) -> NoisesOfPrompts:
        """How many samples in a row have the same prompt: as the settings say, or as what estimates gradients needs."""
        if self.noises is None:
            own, several = self.config.noises_per_prompt, self.parts.buckets is not None
            needed = self._noises_needed() if own is None or several else own  # which looks at surrogates, too
            self.noises = NoisesOfPrompts(own or needed)
        return self.noises

    def _noises_needed(self) -> int:
        config, engine = self.config, self.parts.engine
        size, compared = config.reward_batch or config.batch_size, images_compared(engine)
        # Of as many samples a prompt as rewards compare, so that these can be asked.
        size = -(-size // compared) * compared
        rows = self.order.at([self.taken + place // compared for place in range(size)])
        several = self.parts.buckets is not None
        return max(compared, noises_needed(engine, self.parts.conditions[rows], config.seed, several))

    @property
    def is_warm(self) -> bool:
        """Whether the assistant has had its updates before the generator's first."""
        return self.step > 0 or self.warmed >= self.warm_rounds

    @property
    def place(self) -> str:
        """How far the run is, as part of a sentence."""
        if self.step or not self.warmed:
            return f"after step {self.step} of {self.config.steps}"
        return f"in the assistant's warm-up, after {self.warmed} of {self.warm_rounds} updates"

    def warm_once(self) -> float:
        """One update of the assistant before the generator's first; returns its loss, not finite where it was skipped.

        Raises:
            RunError: bad numbers came up in too many updates in a row.
        """
        started = time.perf_counter()
        engine = self.parts.engine
        now, then = self._assistant_places(self.taken, 2)
        batch = self._take(now, -1 - self.warmed)
        self._expect([then])
        loss = engine.update_assistant(batch)
        self.warmed += 1
        self.taken += self.batch
        self.seconds += time.perf_counter() - started
        self.skipped = engine.guard.end_step(self.warmed, WARM_UPS) if engine.guard is not None else []
        return loss

    def warm_assistant(self, stop: Any) -> None:
        """What is left of the assistant's updates before the generator's first.

        Args:
            stop: a `StopRequest`; its signal ends them.
        """
        while not self.is_warm and not self.asked_to_stop(stop):
            self.warm_once()

    def asked_to_stop(self, stop: Any) -> bool:
        """Whether any process was asked to; all hear of it at the same step."""
        if self.processes.alone:
            return stop.signal is not None
        return any(self.processes.tell(stop.signal is not None))

    def one_step(self) -> dict[str, float]:
        """One generator update; returns its row of metrics.

        Raises:
            RunError: a term failed, or bad numbers came up in too many steps in a row.
        """
        started = time.perf_counter()
        engine, rounds = self.parts.engine, self.parts.engine.fresh_rounds
        for group in engine.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        positions, noises = self.settle_noises().take(self.taken + rounds * self.batch, self.batch)
        if self.assistant_loss is None:
            batches = [self._take(places, self.step) for places in self._assistant_places(self.taken, rounds)]
            self._expect([positions])
            self.assistant_loss = engine.update_assistants(batches)
        next_taken = self.taken + rounds * self.batch + self.settle_noises().new_prompts(self.batch)
        next_rounds = engine.assistant_rounds - (engine.assistant_rounds > 0 and engine.reuse_samples)
        last = self._take(positions, self.step)
        self._expect(self._assistant_places(next_taken, next_rounds))
        with self.random_states_kept_on_failure():
            result = engine.update_generator(last, self.step)
        self.kept_positions = list(positions) if engine.kept is not None else []
        assistant_loss, self.assistant_loss = self.assistant_loss, None
        if not result.skipped:
            self.parts.average.update()
        scheduled = scheduled_numbers(self.config, self.step)
        self.step += 1
        self.taken = next_taken
        self.noises = noises
        elapsed = max(time.perf_counter() - started, 1e-9)
        self.seconds += elapsed
        row = mean_row(self.processes, step_metrics(result, assistant_loss, divergence_of(engine.terms)))
        row |= scheduled
        self.skipped = engine.guard.end_step(self.step) if engine.guard is not None else []
        if self.skipped:
            row["skipped"] = float(len(self.skipped))
        measured = (self.seconds, self.batch / elapsed, peak_memory_mb(self.parts.device))
        return {"step": self.step} | row | dict(zip(MEASURED, measured, strict=True))

    @contextmanager
    def random_states_kept_on_failure(self) -> Iterator[None]:
        """Where a term fails, a dead reward say, the state is as before the update: resuming repeats it to the bit."""
        engine, device = self.parts.engine, self.parts.device
        before = engine.random.get_state(), random_states(device)
        try:
            yield
        except BaseException:
            engine.random.set_state(before[0])
            restore_random_states(before[1], device)
            raise

    def save_samples(self) -> None:
        """The grid of fixed prompts and fixed noise as it is now, from the averaged weights."""
        chosen = self.parts.eval_conditions[:SAMPLES_IN_GRID]
        with random_states_kept(self.parts.device), self.parts.average.applied():
            images = generate_images(self.parts.generator, self.parts.reference, chosen, self.config.seed)
            save_grid(images, self.folder.samples / f"step-{self.step:08d}.png")


def divergence_of(terms: Sequence[WeightedTerm]) -> str | None:
    """The name of the objective's divergence: its first term that uses the assistant."""
    return next((weighted.name for weighted in terms if uses_assistant(weighted.term)), None)


def step_metrics(result: ObjectiveResult, assistant_loss: float, divergence: str | None) -> dict[str, float]:
    """The numbers of one step for `metrics.jsonl`, the machine's measurements aside.

    Args:
        result: the objective's, its numbers read.
        assistant_loss: mean loss of the assistant's updates; left out where nothing uses the assistant.
        divergence: name of the term whose value is the divergence.
    """
    means = result.means
    row = {
        "divergence" if name == divergence else metric_name("latent_score", name) if term.predicted else name: means[
            name
        ]
        for name, term in result.results.items()
    }
    scored = [name for own in result.results.values() for name in own.scores]
    row |= {metric_name("reward", name): means[metric_name("scores", name)] for name in scored}
    row |= {metric_name(key, name): value for name, own in result.results.items() for key, value in own.details.items()}
    row |= result.details
    row |= {metric_name("grad_norm", name): value for name, value in result.norms.items()}
    row |= {metric_name("cosine", name): value for name, value in result.cosines.items()}
    if divergence is not None:
        row["assistant_loss"] = assistant_loss
    # Of a skipped update only what is a number is known.
    return {name: float(value) for name, value in row.items() if math.isfinite(value)}


def scheduled_numbers(config: TrainConfig, step: int) -> dict[str, float]:
    """What the settings' schedules said at an update, the first being 0."""
    row = {} if config.guidance_schedule is None else {"guidance": config.guidance_at(step)}
    scale = config.scale_by_step
    return row if scale is None else row | {"scale_factor": scale(step)}


def mean_row(processes: Processes, row: dict[str, float]) -> dict[str, float]:
    """The mean of all processes' numbers of a step: those of the whole batch."""
    if processes.alone:
        return row
    rows = processes.tell(row)
    names = dict.fromkeys(name for other in rows for name in other)
    means = {name: _mean_of(name, rows) for name in names}
    return {name: mean for name, mean in means.items() if mean is not None}


def _mean_of(name: str, rows: Sequence[Mapping[str, float]]) -> float | None:
    """The mean over processes of one number; None where one of them has none. What each says of a part of its samples
    counts as they are many: their share is the number `scored/NAME`."""
    share = metric_name("scored", name)
    if any(share in row for row in rows):
        shares = [row.get(share, 1.0) if name in row else 0.0 for row in rows]
        total = sum(shares)
        return sum(own * row[name] for own, row in zip(shares, rows, strict=True) if own) / total if total else None
    if not all(name in row for row in rows):
        return None
    return sum(row[name] for row in rows) / len(rows)
