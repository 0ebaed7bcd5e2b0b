"""A cell of the study: one thing to be done and recorded, named by all that distinguishes it from the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from dipp_toolkit.utils.fingerprint import digest_of

ANCHOR, COLUMN, SEARCH, PACE, FINAL, BACKWARDS = "anchor", "column", "search", "pace", "final", "backwards"
PARTS = (COLUMN, ANCHOR, SEARCH, PACE, FINAL, BACKWARDS)
"""What the study consists of: columns of images that were not trained here, each sibling's anchor, the search, the time
of an update, the runs that are reported, and the runs that ask why distillation went backwards."""
TRAINED = (SEARCH, FINAL, BACKWARDS)
"""Parts whose cells are trainings."""


@dataclass(frozen=True)
class Cell:
    """One thing to be done.

    Attributes:
        world: name of a `World`.
        part: one of `PARTS`.
        name: of the sibling, the column or the group of runs.
        seed: of the training; 0 where there is none.
        updates: of the generator; 0 where there are none.
        varied: settings over those that all share.
    """

    world: str
    part: str
    name: str
    seed: int = 0
    updates: int = 0
    varied: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, world: str, part: str, name: str, seed: int = 0, updates: int = 0, **varied: Any) -> Cell:
        """A cell with these settings, whatever their order."""
        return cls(world, part, name, seed, updates, tuple(sorted(varied.items())))

    @cached_property
    def id(self) -> str:
        """Names it among all cells, on every machine."""
        return digest_of(asdict(self))[:20]

    @property
    def settings(self) -> Mapping[str, Any]:
        """`varied` as a mapping."""
        return dict(self.varied)

    @property
    def label(self) -> str:
        """For people."""
        numbers = [f"seed {self.seed}, {self.updates} updates"] if self.part in TRAINED else []
        shown = [f"{name}={value}" for name, value in self.varied if name not in ("term", "weighting")]
        shown = [] if self.part == PACE else shown
        return ", ".join([f"{self.world}, {self.part}: {self.name}", *numbers, *shown])
