"""The words of the emoji world: which emoji, what they are called, on which backgrounds, and which pairs are held out.

Nothing here needs torch: the plugin lists its prompt sets from this file, and the recipe trains on the same words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "grey": (186, 186, 190),
    "black": (34, 34, 38),
    "red": (255, 138, 138),
    "blue": (138, 176, 255),
    "green": (150, 222, 150),
    "yellow": (255, 238, 160),
    "purple": (200, 160, 235),
}
"""Background colours by the word a caption uses, as 8-bit sRGB."""

TEMPLATES: tuple[str, ...] = (
    "{name} on {colour}",
    "a {name} on {colour}",
    "{name} on a {colour} background",
    "{name}, {colour} background",
)
"""Caption wordings. The first is the canonical one, which every prompt set uses."""


@dataclass(frozen=True)
class Emoji:
    """One emoji: its PNG in the source package, and its names, the canonical one first."""

    image: str
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.names[0]


@cache
def emoji() -> tuple[Emoji, ...]:
    """All emoji of the world, in the order of the sprite sheet."""
    lines = resources.files(__package__).joinpath("names.tsv").read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines if line)
    return tuple(Emoji(image, tuple(names.split("|"))) for image, names in rows)


def is_held_out(emoji_index: int, background_index: int) -> bool:
    """Whether a pair of emoji and background is kept out of all training: a third of the pairs, each emoji on
    two or three backgrounds and each background with a third of the emoji."""
    return (emoji_index + background_index) % 3 == 0


def pairs(held_out: bool) -> list[tuple[int, int]]:
    """(emoji index, background index) of the held-out or of the training pairs, emoji by emoji."""
    return [(i, j) for i in range(len(emoji())) for j in range(len(BACKGROUNDS)) if is_held_out(i, j) is held_out]


def caption(emoji_index: int, background_index: int, name: int = 0, template: int = 0) -> str:
    """The caption of a pair; `name` and `template` choose the wording (0 is the canonical one)."""
    names = emoji()[emoji_index].names
    colour = tuple(BACKGROUNDS)[background_index]
    return TEMPLATES[template].format(name=names[name % len(names)], colour=colour)


def vocabulary() -> list[str]:
    """Every word (and the comma) that a caption of this world can hold, sorted."""
    texts = [name for entry in emoji() for name in entry.names] + [*BACKGROUNDS, *TEMPLATES]
    return sorted({word for text in texts for word in re.findall(r"[a-z]+|,", re.sub(r"\{.*?\}", " ", text))})
