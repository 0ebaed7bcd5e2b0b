"""Votes for tests: images of one grey, made by makers of given strength, and voters who know it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dipp_toolkit.preferences.pair import Candidate, Comparison


@dataclass(frozen=True)
class Grey:
    """A picture of one grey."""

    level: float
    size: int = 4

    def read(self) -> Tensor:
        return torch.full((3, self.size, self.size), self.level)

    def encoded(self) -> bytes:
        return b""


STRENGTHS = {"weak": 0.0, "middle": 1.0, "strong": 2.0}


def fake_images(
    prompts: int = 12, each: int = 2, strengths: Mapping[str, float] = STRENGTHS, seed: int = 0
) -> list[Candidate]:
    """Images whose grey is the logistic of their rating, half of the prompts in either of two categories."""
    random = np.random.default_rng(seed)
    images = []
    for prompt in range(prompts):
        for maker, strength in strengths.items():
            for _ in range(each):
                level = float(1 / (1 + np.exp(-(strength - 1 + random.normal() / 2))))
                category = "animals" if prompt % 2 else "food"
                images.append(Candidate(len(images), f"prompt {prompt}", maker, Grey(level), category))
    return images


def rating(candidate: Candidate) -> float:
    """What a grey says."""
    picture = candidate.picture
    assert isinstance(picture, Grey)
    return float(np.log(picture.level / (1 - picture.level)))


def fake_votes(
    images: Sequence[Candidate], voter: str = "ann", count: int = 200, seed: int = 0, wrong: float = 0.1
) -> list[Comparison]:
    """A voter who errs on a share of random pairs of images of different makers, and never prefers neither."""
    random = np.random.default_rng(seed)
    votes = []
    while len(votes) < count:
        first, second = (images[number] for number in random.integers(len(images), size=2))
        if first.prompt == second.prompt and first.maker != second.maker:
            right = rating(first) > rating(second)
            votes.append(Comparison(first, second, float(right == (random.random() >= wrong)), voter))
    return votes
