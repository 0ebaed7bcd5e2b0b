"""What is being accepted, and what its checks leave for one another."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...config import TrainConfig
from ...models.files.named_folders import named_folder
from ...models.generator_options import FROM_ELSEWHERE, generator_options, pipeline_of_reference
from ...models.published import PublishedGenerator, PublishedPipeline
from ...registry import get_registry
from ...utils.precision import FROZEN_DTYPES
from .settings import Candidate
from .weights_used import WeightFile

FAREST = float("inf")


@dataclass(frozen=True)
class Scored:
    """What a reward gave for the golden images.

    Attributes:
        scores: one an image, rounded to six digits.
        weights: what golden numbers are kept under; see `golden.weights_key`.
        version: of the reward, empty where it has none.
    """

    scores: tuple[float, ...]
    weights: str
    version: str


@dataclass
class Subject:
    """A generator with its reference, or a reference alone.

    Attributes:
        candidate: what is to be accepted.
        config: resolved settings of the short alignment.
        device: where everything runs.
        scratch: a folder for what is written and thrown away.
        deadline: when no further check begins, by `clock`.
        clock: gives seconds.
        weights: files that were looked at, in the order of being met.
        unusable: rewards that cannot be used, each with the reason.
        scores: of the golden images, by reward, where they were scored.
        first_step: the row of metrics of the first generator update.
        trial: the training that was begun.
        before: images before it, `(prompts, seeds, 3, height, width)`.
    """

    candidate: Candidate
    config: TrainConfig
    device: torch.device
    scratch: Path
    deadline: float = FAREST
    clock: Callable[[], float] = time.monotonic
    weights: list[WeightFile] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
    scores: dict[str, Scored] = field(default_factory=dict)
    first_step: Mapping[str, float] | None = None
    trial: Any = None
    before: Tensor | None = None
    loaded: tuple[Any, Any] | None = None

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return self.clock() >= self.deadline

    @property
    def generator(self) -> str | None:
        """Name of the generator; None where the reference's own network is begun with."""
        return self.config.generator

    @property
    def reference(self) -> str:
        """Name of the reference."""
        return self.config.reference or ""

    @cached_property
    def generator_folder(self) -> Path | None:
        """The generator's pipeline folder, fetched where it is the hub's; None where there is none."""
        return None if self.generator is None else named_folder("generator", self.generator)

    @cached_property
    def reference_folder(self) -> Path | None:
        """Likewise the reference's."""
        return named_folder("reference", self.reference)

    def record(self, kind: str, name: str) -> PublishedPipeline | None:
        """What a plugin says of a published name; None of any other."""
        entry = get_registry().entries[kind].get(name)
        if entry is None and kind == "generator":
            entry = pipeline_of_reference(name, generator_options(self.config))
        return entry.factory if entry is not None and isinstance(entry.factory, PublishedPipeline) else None

    @property
    def load_options(self) -> dict[str, Any]:
        """What the generator is loaded with: what somebody gave, over what its record says."""
        given = generator_options(self.config)
        record = None if self.generator is None else self.record("generator", self.generator)
        return record.options(given) if isinstance(record, PublishedGenerator) else given

    @property
    def starts_elsewhere(self) -> bool:
        """Whether the generator's network has other weights than its pipeline's."""
        return any(self.load_options.get(name) for name in FROM_ELSEWHERE)

    @property
    def dtype(self) -> torch.dtype:
        """Of weights that are compared: that of the frozen ones."""
        return FROZEN_DTYPES[self.config.frozen_precision]

    @property
    def usable_config(self) -> TrainConfig:
        """The settings with those rewards alone that can be used."""
        rewards = {name: weight for name, weight in self.config.rewards.items() if name not in self.unusable}
        judge = self.config.judge if self.config.judge not in self.unusable else None
        floors = {name: level for name, level in self.config.floors.items() if name not in self.unusable}
        return self.config.model_copy(update={"rewards": rewards, "judge": judge, "floors": floors})

    @property
    def reward_names(self) -> list[str]:
        """Rewards that are trained on, and the judge, each once."""
        names = [*self.config.rewards, *self.config.floors, *([self.config.judge] if self.config.judge else [])]
        return list(dict.fromkeys(names))

    def free(self) -> None:
        """Let go of networks that were loaded to be compared."""
        self.loaded = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Let go of everything."""
        if self.trial is not None:
            self.trial.writer.close()
        self.trial, self.before = None, None
        self.free()
