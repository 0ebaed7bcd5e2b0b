"""The settings of a bench."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import RequestError
from ...utils.paths import check_folder_place
from .entries import BenchEntry

METRICS = ("diversity", "saturation", "contrast", "clipped", "parameters")
"""Measured where nothing else is asked for; the monitors need the first four, and they are always there."""


@dataclass(frozen=True)
class BenchSettings:
    """What is compared, on what, and by what.

    Attributes:
        entries: generators and references.
        prompts: a prompt set or file.
        rewards: rewards that are reported.
        judges: rewards that judge, which nothing was trained on.
        metrics: metrics beside those that are always measured.
        options: of rewards and metrics, by name.
        seeds: noises of every prompt.
        out: the bench's folder.
        images: folder of the image store; `images/` in `out` where None.
        batch: images at a time.
        device: `auto`, `cpu`, `cuda`, ...
        pictures: prompts whose images go into the rows.
        command: what to type to do this again.
    """

    entries: tuple[BenchEntry, ...]
    prompts: str
    rewards: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()
    metrics: tuple[str, ...] = METRICS
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (1, 2)
    out: Path = Path("bench")
    images: Path | None = None
    batch: int = 32
    device: str = "auto"
    pictures: int = 8
    command: str = ""

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            RequestError: as a sentence.
        """
        both = sorted(set(self.rewards) & set(self.judges))
        if both:
            raise RequestError(f"'{both[0]}' is named as a reward and as a judge; name it once.")
        if not self.rewards and not self.judges and not self.metrics:
            raise RequestError("Nothing is measured; name rewards, a judge or metrics.")
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise RequestError("The seeds of a bench have to be different numbers, at least one.")
        if self.batch < 1:
            raise RequestError(f"The batch size is {self.batch}; expected at least 1.")
        check_folder_place(self.out, "bench's folder")
        if self.images is not None:
            check_folder_place(self.images, "image store")
