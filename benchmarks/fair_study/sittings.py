"""The two sets of prompts and noises that images are judged on: one to choose settings by, another that is reported."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from benchmarks._shared.emoji_columns import SEEDS, features_of, judge_column, one_step_column, stored
from benchmarks._shared.teacher import teacher_column
from dipp_emoji.captions import caption, pairs
from dipp_emoji.compose import compose
from dipp_emoji.judge import EmojiJudge
from dipp_emoji.rewards import EmojiPreference
from dipp_toolkit import Condition, Generator
from dipp_toolkit.evaluation.diversity import seed_diversity
from dipp_toolkit.evaluation.intervals import mean_interval
from dipp_toolkit.models.loading import load_reference
from dipp_toolkit.protocols import Reference

BATCH = 176


@dataclass(frozen=True)
class Sitting:
    """Prompts, noises and real compositions that a column of images is judged with.

    Attributes:
        name: in rows.
        held_out: whether the prompts are of pairs that nothing was trained on.
        count: prompts, drawn from all by `draw`.
        noises: seeds, one image of each prompt for each.
        real: seed of the real compositions of the same pairs that the Frechet distance is to.
        draw: seed of the draw of prompts.
    """

    name: str
    held_out: bool
    count: int
    noises: tuple[int, ...]
    real: int
    draw: int = 0

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The prompts as pairs of emoji and background, in order."""
        every = pairs(held_out=self.held_out)
        order = torch.randperm(len(every), generator=torch.Generator().manual_seed(self.draw))
        return [every[index] for index in sorted(order[: self.count].tolist())]

    @property
    def prompts(self) -> list[str]:
        """The canonical captions of the pairs."""
        return [caption(i, j) for i, j in self.pairs]


CHOICE = Sitting("choice", held_out=False, count=352, noises=(500, 501), real=11, draw=7)
"""Half of the training prompts. Settings are chosen by it, and no number of it is reported as a result."""
REPORTED = Sitting("reported", held_out=True, count=352, noises=SEEDS, real=1)
"""All held-out prompts, with the noises and the real compositions of `benchmarks/emoji_quality`."""
SITTINGS = {sitting.name: sitting for sitting in (CHOICE, REPORTED)}


@cache
def the_judge() -> EmojiJudge:
    """The judge, loaded once."""
    return EmojiJudge()


@cache
def the_reward() -> EmojiPreference:
    """The preference that runs are trained on, loaded once."""
    return EmojiPreference()


@cache
def the_reference(name: str) -> Reference:
    """A reference, loaded once."""
    return load_reference(name)


@cache
def encoded(sitting: Sitting, reference: str) -> Condition:
    """A sitting's prompts, encoded once."""
    return the_reference(reference).encode(sitting.prompts)


@cache
def real_features(sitting: Sitting) -> Tensor:
    """The judge's features of real compositions of a sitting's pairs, as many as it has images."""
    table, random = torch.tensor(sitting.pairs), torch.Generator().manual_seed(sitting.real)
    images = torch.stack([compose(table[:, 0], table[:, 1], random) for _ in sitting.noises], dim=1)
    return features_of(the_judge(), images.flatten(0, 1))


def one_step_images(generator: Generator, sitting: Sitting, reference: str) -> Tensor:
    """A generator's images, `(prompts, noises, 3, height, width)`."""
    return one_step_column(generator, the_reference(reference), encoded(sitting, reference), sitting.noises)


def teacher_images(sitting: Sitting, reference: str, steps: int, guidance: float) -> Tensor:
    """The reference's own images from the same noises, `(prompts, noises, 3, height, width)`."""
    return teacher_column(the_reference(reference), encoded(sitting, reference), steps, guidance, sitting.noises)


@torch.no_grad()
def judged(images: Tensor, sitting: Sitting) -> tuple[dict[str, Any], list[float]]:
    """What is said of a column of images, and the judge's score of each prompt, rounded to 2 decimals.

    Args:
        images: in [0, 1], `(prompts, noises, 3, height, width)`, of the sitting's prompts and noises.
        sitting: whose they are.
    """
    seen = judge_column(the_judge(), images, sitting.prompts, real_features(sitting))
    pixels, captions = stored(images).flatten(0, 1), [text for text in sitting.prompts for _ in sitting.noises]
    starts = range(0, len(captions), BATCH)
    rewards = torch.cat([the_reward()(pixels[at : at + BATCH], captions[at : at + BATCH]) for at in starts])
    interval = mean_interval(seen.scores)
    numbers = {
        "judge": [round(value, 4) for value in (interval.mean, interval.low, interval.high)],
        "naming": round(seen.naming, 4),
        "frechet": round(seen.frechet, 3),
        "diversity": round(seed_diversity(stored(images)), 4),
        "reward": round(rewards.mean().item(), 3),
    }
    return numbers, [round(value, 2) for value in seen.scores.double().mean(1).tolist()]
