"""Scenes of emoji with GenEval's metadata: half show what their prompt says, half fail it in the way its task asks for.

What a scene shows is known because it is drawn: which emoji, how many, of which colour and where. An emoji is drawn in
shades of one colour, jittered in place, size and colour, on a background of the emoji world, with noise over all.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dipp_emoji.captions import emoji
from dipp_emoji.compose import backgrounds, sprites
from dipp_geneval.metadata import Metadata

SIDE, CELLS = 192, 3
CELL = SIDE // CELLS
SIZES = (44, 52)
NOISE = 0.05
CLASSES = (
    "alarm clock", "bus", "car", "castle", "house", "owl", "panda", "pizza", "robot face", "skull", "soccer ball",
    "turtle",
)  # fmt: skip
TINTS = {
    "red": (0.88, 0.16, 0.16), "orange": (0.97, 0.55, 0.10), "yellow": (0.97, 0.88, 0.20), "green": (0.18, 0.64, 0.24),
    "blue": (0.18, 0.36, 0.88), "purple": (0.52, 0.22, 0.76), "pink": (0.97, 0.60, 0.76), "brown": (0.46, 0.29, 0.15),
}  # fmt: skip
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
STEPS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


@dataclass(frozen=True)
class Thing:
    """An emoji in a scene.

    Attributes:
        name: one of `CLASSES`.
        colour: one of `TINTS`.
        cell: column and row.
    """

    name: str
    colour: str
    cell: tuple[int, int]


@dataclass(frozen=True)
class Scene:
    """A scene.

    Attributes:
        metadata: what its prompt asks for.
        right: whether it shows that.
        things: what it shows.
    """

    metadata: Metadata
    right: bool
    things: Sequence[Thing]


def glyphs() -> Tensor:
    """Lightness and opacity of `CLASSES`, `(classes, 2, 64, 64)`."""
    names = [entry.name for entry in emoji()]
    rgba = sprites()[[names.index(name) for name in CLASSES]]
    opacity = rgba[:, 3:]
    return torch.cat([rgba[:, :3].mean(1, keepdim=True) / opacity.clamp(min=1e-3), opacity], 1)


def scenes(count: int, seed: int = 0) -> list[Scene]:
    """So many scenes, task after task, right and wrong ones by turns."""
    choose = random.Random(seed)
    return [_scene(TASKS[number % len(TASKS)], number // len(TASKS) % 2 == 0, choose) for number in range(count)]


def _scene(task: str, right: bool, choose: random.Random) -> Scene:
    first, second, other = choose.sample(CLASSES, 3)
    red, blue, grey = choose.sample(list(TINTS), 3)  # three different colours, whichever
    cells = [(column, row) for row in range(CELLS) for column in range(CELLS)]
    choose.shuffle(cells)
    clauses: list[dict[str, object]] = [{"class": first, "count": 1}]
    exclude: list[dict[str, object]] = []
    rest = [Thing(other, grey, cells[-1])] * choose.randint(0, 1)  # something that nobody asked about
    if task == "single_object":
        prompt, things = f"a photo of a {first}", [Thing(first if right else second, red, cells[0])]
    elif task == "two_object":
        prompt = f"a photo of a {first} and a {second}"
        clauses.append({"class": second, "count": 1})
        things = [Thing(first, red, cells[0]), *[Thing(second, blue, cells[1])] * right]
    elif task == "counting":
        wanted = choose.randint(2, 4)
        prompt, rest = f"a photo of {wanted} of {first}", []
        clauses, exclude = [{"class": first, "count": wanted}], [{"class": first, "count": wanted + 1}]
        shown = wanted if right else wanted + choose.choice((-1, 1))
        things = [Thing(first, choose.choice(list(TINTS)), cell) for cell in cells[:shown]]
    elif task == "colors":
        prompt = f"a photo of a {red} {first}"
        clauses = [{"class": first, "count": 1, "color": red}]
        things = [Thing(first, red if right else blue, cells[0])]
    elif task == "position":
        relation = choose.choice(list(OPPOSITE))
        prompt = f"a photo of a {second} {relation} a {first}"
        clauses.append({"class": second, "count": 1, "position": [relation, 0]})
        across, down = STEPS[relation if right else OPPOSITE[relation]]
        things, rest = [Thing(first, red, (1, 1)), Thing(second, blue, (1 + across, 1 + down))], []
    else:
        prompt = f"a photo of a {red} {first} and a {blue} {second}"
        clauses = [{"class": first, "count": 1, "color": red}, {"class": second, "count": 1, "color": blue}]
        colours = (red, blue) if right else (blue, red)
        things = [Thing(first, colours[0], cells[0]), Thing(second, colours[1], cells[1])]
    row = {"prompt": prompt, "tag": task, "include": clauses, "exclude": exclude}
    return Scene(Metadata.model_validate(row), right, [*things, *rest])


def draw(scene: Scene, generator: torch.Generator, noise: float = NOISE) -> Tensor:
    """A scene, `(3, SIDE, SIDE)` in [0, 1].

    Args:
        scene: to be drawn.
        generator: of jitter and noise.
        noise: standard deviation of what is added to every pixel.
    """
    behind = backgrounds()
    image = behind[int(torch.randint(len(behind), (), generator=generator))][:, None, None].repeat(1, SIDE, SIDE)
    for thing in scene.things:
        size = int(torch.randint(SIZES[0], SIZES[1] + 1, (), generator=generator))
        jitter = torch.randint(-5, 6, (2,), generator=generator).tolist()
        left, top = (CELL * cell + (CELL - size) // 2 + shift for cell, shift in zip(thing.cell, jitter, strict=True))
        light, opacity = resized(glyphs()[CLASSES.index(thing.name)][None], size)[0]
        tint = torch.tensor(TINTS[thing.colour]) + 0.04 * torch.randn(3, generator=generator)
        painted = tint[:, None, None] * (0.4 + 0.6 * light)
        place = image[:, top : top + size, left : left + size]
        place.copy_(opacity * painted + (1 - opacity) * place)
    return (image + noise * torch.randn(image.shape, generator=generator)).clamp(0, 1)


def resized(glyph: Tensor, size: int) -> Tensor:
    """Glyphs `(batch, 2, 64, 64)` at another size, antialiased."""
    return F.interpolate(glyph, (size, size), mode="bilinear", antialias=True, align_corners=False)
