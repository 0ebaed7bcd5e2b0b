"""Diagnoses while a run goes on: around every so many generator updates.

A diagnosis changes nothing but its own file: no random state moves, and no number of the training depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from ..config import TrainConfig
from ..diffusion.schedules import at_usable_times
from ..monitoring.denoised import bin_middles, denoise_samples
from ..monitoring.diagnostic import Observation, all_diagnostics, find_warnings, is_diagnosed, sides_of
from ..monitoring.probe import BINS, Probe
from ..utils.jsonl import MonitorsFile, read_step_rows
from ..utils.precision import pass_autocast
from ..utils.reproducibility import random_states_kept
from .run_state.run_folder import RunFolder
from .setup.assembly import Assembled


class Diagnoses:
    """Diagnoses a run.

    Args:
        config: the run's settings; with `diagnose_every` 0, or more than its steps, nothing is ever due.
        parts: the run's parts, as assembled.
        folder: where `diagnostics.jsonl` goes.
    """

    def __init__(self, config: TrainConfig, parts: Assembled, folder: RunFolder):
        self.config, self.parts, self.folder = config, parts, folder
        self.record: MonitorsFile | None = None
        self.active = is_diagnosed(config)
        self.sides = sides_of(parts.engine.terms)
        self.steps: list[Mapping[str, float]] = []
        """The steps' metrics since the last diagnosis."""
        if self.active:
            times = at_usable_times(parts.reference.denoiser.schedule, bin_middles(*config.time_range, BINS))
            self.probe = Probe(parts.generator, parts.conditions, config.seed, config.batch_size, times)

    def open(self, step: int) -> None:
        """Go on with `diagnostics.jsonl` from this step; a run that begins is diagnosed before its first step.

        Called once `metrics.jsonl` has been cut back to this step.
        """
        if not self.active:
            return
        self.record = MonitorsFile(self.folder.diagnostics, step)
        since = step - step % self.config.diagnose_every
        self.steps = [row for row in read_step_rows(self.folder.metrics) if row["step"] > since]
        if not step:
            self._write(0, None)

    def close(self) -> None:
        """Close the file, if it was opened."""
        if self.record is not None:
            self.record.close()

    def before(self, step: int) -> Tensor | None:
        """The generator's samples just before the update with this number, from 1; None where it is not diagnosed."""
        if self.record is None or step % self.config.diagnose_every or not self._follows:
            return None
        with self._unnoticed():
            return self.probe.samples()

    def after(self, row: Mapping[str, float], earlier: Tensor | None) -> None:
        """Take in the update's metrics, and write a line where it is to be diagnosed.

        Args:
            row: its line of `metrics.jsonl`.
            earlier: what `before` gave.
        """
        if self.record is None:
            return
        self.steps.append(row)
        if row["step"] % self.config.diagnose_every == 0:
            self._write(int(row["step"]), earlier)
            self.steps = []

    @property
    def _follows(self) -> bool:
        """Whether the assistant is trained, so that it follows the generator."""
        return self.parts.engine.assistant_rounds > 0

    @contextmanager
    def _unnoticed(self) -> Iterator[None]:
        device, precision = self.parts.device, self.parts.engine.precision
        with random_states_kept(device), pass_autocast(device.type, precision):
            yield

    def _write(self, step: int, earlier: Tensor | None) -> None:
        assert self.record is not None
        reference, denoised = self.parts.reference, None
        with self._unnoticed():
            x0 = self.probe.samples()
            if self._follows:
                noise, guidance = self.probe.noise(step), self.config.guidance_at(max(step - 1, 0))
                denoised = denoise_samples(self.probe, reference, self.parts.assistant, guidance, x0, earlier, noise)
        observation = Observation(
            probe=self.probe, reference=reference, x0=x0, denoised=denoised, metrics=self.steps, sides=self.sides
        )
        row: dict[str, Any] = {"step": step}
        with random_states_kept(self.parts.device):
            for diagnostic in all_diagnostics():
                row |= diagnostic.measure(observation)
        warnings = find_warnings([*self.record.rows, row], self.config)
        self.record.write(row | {"warnings": [warning.model_dump() for warning in warnings]})
