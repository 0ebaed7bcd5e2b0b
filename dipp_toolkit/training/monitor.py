"""The monitors of a running training: samples of held-out prompts and fixed noises, measured every so many steps.

A measurement changes nothing but the files it writes: it moves no random state, and no number of the training depends
on it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..config import TrainConfig
from ..errors import RequestError
from ..evaluation.comparison import score
from ..events import MonitorEvent
from ..models.sampling import generate_images, sample_reference
from ..monitoring.agreement import agreements
from ..monitoring.history import Bases, read_bases, row_of, write_bases
from ..monitoring.monitors import LEAST_PROMPTS, find_warnings, trained_on
from ..monitoring.snapshot import Snapshot, take_snapshot
from ..protocols import Reward
from ..utils.jsonl import MonitorsFile
from ..utils.lazy_sequence import evenly_spaced
from ..utils.reproducibility import random_states_kept
from .early_stop import Stop, stop_of
from .run_state.run_folder import RunFolder, deciding_options
from .setup.assembly import Assembled

SEEDS = 2
FIRST_SEED = 10_000
"""Added to the run's seed, so that the noises differ from those of the comparison at the end."""


def is_monitored(config: TrainConfig) -> bool:
    """Whether the monitors look at all during a run."""
    return 0 < config.monitor_every <= config.steps


def check_held_out(config: TrainConfig, available: int) -> None:
    """Refuse `stop_on` where the monitors look at too few prompts.

    Args:
        config: resolved settings.
        available: held-out prompts that the run measures on, `eval_count` at most.

    Raises:
        RequestError: there are too few.
    """
    count = min(config.monitor_count, available)
    if is_monitored(config) and config.stop_on and count < LEAST_PROMPTS:
        raise RequestError(
            f"stop_on needs at least {LEAST_PROMPTS} held-out prompts to tell a warning from chance, and there are "
            f"{count}. Raise monitor_count and eval_count, or name more prompts with eval_prompts."
        )


class Monitor:
    """Measures a run on held-out prompts.

    Made before a resumed run's state is loaded, while the generator is still what the training started from.

    Args:
        config: the run's settings; with `monitor_every` 0, or more than its steps, nothing is ever due.
        parts: the run's parts, as assembled.
        folder: where the files go.

    Raises:
        RequestError: warnings are to stop the run, and there are too few prompts for any.
        RunError: a reward failed on the start's images.
    """

    def __init__(self, config: TrainConfig, parts: Assembled, folder: RunFolder):
        self.config, self.parts, self.folder = config, parts, folder
        self.trained_on = trained_on(config)
        self.rewards: Mapping[str, Reward] = {
            **parts.rewards,
            **({parts.judge[0]: parts.judge[1]} if parts.judge else {}),
            **parts.watchers,
            **agreements(parts.rewards),
        }
        self.record: MonitorsFile | None = None
        self.active = is_monitored(config)
        if not self.active:
            return
        available = len(parts.eval_conditions)
        check_held_out(config, available)
        count = min(config.monitor_count, available)
        self.about = ""
        self.conditions = parts.eval_conditions[evenly_spaced(available, count)]
        self.seeds = [config.seed + FIRST_SEED + k for k in range(SEEDS)]
        self.bases = self._bases()

    def _bases(self) -> Bases:
        config = self.config
        about: list[Any] = [self.conditions.prompts, self.seeds, sorted(self.rewards)]
        about.append(deciding_options(config.reward_options))
        about += [config.generator, config.reference, config.reference_steps, config.comparison_guidance]
        self.about = hashlib.sha256(json.dumps(about, default=str).encode()).hexdigest()
        bases = read_bases(self.folder.monitor_bases, self.about)
        if bases is None:
            bases = Bases(self._snapshot(self._generated))
            write_bases(self.folder.monitor_bases, bases, self.about)
        return bases

    def _reference(self) -> Snapshot:
        """The reference's measurement: sampled when first needed, so that the first step does not wait for it."""
        if self.bases.reference is None:
            self.bases = replace(self.bases, reference=self._snapshot(self._sampled))
            write_bases(self.folder.monitor_bases, self.bases, self.about)
        assert self.bases.reference is not None
        return self.bases.reference

    def _generated(self, seed: int) -> Tensor:
        return generate_images(
            self.parts.generator, self.parts.reference, self.conditions, seed, self.config.batch_size
        )

    def _sampled(self, seed: int) -> Tensor:
        config = self.config
        return sample_reference(
            self.parts.reference,
            self.conditions,
            seed,
            config.reference_steps,
            config.comparison_guidance,
            config.batch_size,
        )

    def _snapshot(self, images_of: Any) -> Snapshot:
        with random_states_kept(self.parts.device), self.parts.average.applied():
            images = torch.stack([images_of(seed) for seed in self.seeds], dim=1)
            scores = {name: self._scores(name, reward, images) for name, reward in self.rewards.items()}
        return take_snapshot(images, scores)

    def _scores(
        self, name: str, reward: Reward, images: Float[Tensor, "prompts seeds 3 height width"]
    ) -> Float[Tensor, "prompts seeds"]:
        prompts = [prompt for prompt in self.conditions.prompts for _ in self.seeds]
        values = score(
            reward, images.flatten(0, 1), prompts, batch=self.config.batch_size, device=self.parts.device, name=name
        )
        return values.reshape(images.shape[:2])

    def open(self, step: int) -> None:
        """Go on with `monitors.jsonl` from this step."""
        if self.active:
            self.record = MonitorsFile(self.folder.monitors, step)

    def close(self) -> None:
        """Close the file, if it was opened."""
        if self.record is not None:
            self.record.close()

    def due(self, step: int) -> bool:
        """Whether this step is to be measured and has not been."""
        if self.record is None or step % self.config.monitor_every:
            return False
        return not self.record.rows or self.record.rows[-1]["step"] != step

    def measure(self, step: int) -> MonitorEvent:
        """Look at the averaged generator, and write a line.

        Raises:
            RunError: a reward failed.
        """
        if self.record is None:
            raise ValueError("Nothing to measure: the monitors are off, or the file was not opened.")
        start = self.bases.start
        if step and not self.record.rows:  # the monitors were not asked for when the run began
            self.record.write(row_of(0, start, start, []))
        now = self._snapshot(self._generated) if step else start
        warnings = find_warnings(now, start, self.trained_on, self._reference()) if step else []
        row = row_of(step, now, start, warnings)
        self.record.write(row)
        stop = self.stop(step)
        return MonitorEvent(step, self.config.steps, row, tuple(warnings), stop.text if stop else "")

    def stop(self, step: int) -> Stop | None:
        """Why the run has to end at this step, or None, also where this step was not measured."""
        if self.record is None or not self.record.rows or self.record.rows[-1]["step"] != step:
            return None
        return stop_of(self.record.rows, self.config, self.folder)
