"""Columns of images of the emoji world's held-out prompts, and how `emoji-judge` sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dipp_emoji.captions import pairs
from dipp_emoji.compose import compose
from dipp_emoji.judge import EmojiJudge
from dipp_toolkit import Condition, Generator
from dipp_toolkit.evaluation.frechet import frechet_distance
from dipp_toolkit.models.sampling import generate_images
from dipp_toolkit.protocols import Reference

SEEDS = (100, 101)
"""Of the noises that every column is made from."""
NOISES = len(SEEDS)
BATCH = 176


def real_images(seed: int) -> Tensor:
    """Fresh compositions of the held-out pairs, `(prompts, NOISES, 3, 64, 64)`."""
    table = torch.tensor(pairs(held_out=True))
    random = torch.Generator().manual_seed(seed)
    return torch.stack([compose(table[:, 0], table[:, 1], random) for _ in range(NOISES)], dim=1)


def one_step_column(
    generator: Generator, reference: Reference, condition: Condition, seeds: Sequence[int] = SEEDS
) -> Tensor:
    """A generator's images, `(prompts, noises, 3, 64, 64)`, from the same noises for every generator."""
    return torch.stack([generate_images(generator, reference, condition, seed) for seed in seeds], dim=1)


@torch.no_grad()
def features_of(judge: EmojiJudge, images: Tensor) -> Tensor:
    """The judge's features of images `(count, 3, 64, 64)`, a row each."""
    return torch.cat([judge.features(part) for part in images.split(BATCH)])


@dataclass(frozen=True)
class Judged:
    """What the judge says of one column of images.

    Attributes:
        scores: `(prompts, noises)`, higher is better.
        naming: share of the images, in [0, 1], that the judge names rightly.
        frechet: Frechet distance of its features to those of real compositions.
    """

    scores: Tensor
    naming: float
    frechet: float


def stored(images: Tensor) -> Tensor:
    """Images in [0, 1] with the 8-bit pixels that they would be stored with."""
    return images.mul(255).round().div(255)


@torch.no_grad()
def scores_and_naming(judge: EmojiJudge, images: Tensor, prompts: list[str]) -> tuple[Tensor, float]:
    """The judge's scores `(prompts, noises)` of stored images, and the share of them that it names rightly."""
    noises = images.shape[1]
    flat = stored(images).flatten(0, 1)
    captions = [prompt for prompt in prompts for _ in range(noises)]
    parts = [(part, captions[k * BATCH : (k + 1) * BATCH]) for k, part in enumerate(flat.split(BATCH))]
    scores = torch.cat([judge(part, texts) for part, texts in parts]).reshape(len(prompts), noises)
    correct = sum(judge.naming_accuracy(part, texts) * len(part) for part, texts in parts)
    return scores, correct / len(flat)


def judge_column(judge: EmojiJudge, images: Tensor, prompts: list[str], real_features: Tensor) -> Judged:
    """Judge images `(prompts, noises, 3, 64, 64)` with the 8-bit pixels that they would be stored with."""
    scores, naming = scores_and_naming(judge, images, prompts)
    features = features_of(judge, stored(images).flatten(0, 1))
    return Judged(scores, naming, frechet_distance(features, real_features))
