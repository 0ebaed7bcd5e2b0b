"""The worlds of the study: a distilled one-step generator and its many-step reference, the same prompts and judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class World:
    """Where the siblings are compared.

    Attributes:
        name: in rows and tables.
        generator: the distilled one-step generator that every run starts from.
        reference: the many-step diffusion that it is held to.
        best_of: name of the world whose best siblings alone are run here; empty where all are.
        settings: of its own, over `objectives.SHARED`: the same for every sibling.
    """

    name: str
    generator: str
    reference: str
    best_of: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


WORLDS = {
    world.name: world
    for world in (
        World("emoji", "emoji-onestep", "emoji-reference"),
        World("emoji-unet", "emoji-unet-onestep", "emoji-unet-reference", best_of="emoji"),
    )
}
BEST = 3
"""Siblings that go on to a world with `best_of`."""
