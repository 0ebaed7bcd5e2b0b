"""Images with hidden ratings, and voters who know them with errors."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks._shared.emoji_columns import one_step_column, real_images, scores_and_naming
from dipp_emoji.judge import EmojiJudge
from dipp_toolkit import load_generator, load_prompts, load_reference
from dipp_toolkit.preferences.pair import Candidate
from dipp_toolkit.protocols import texts

PROMPTS, NOISE = 40, 0.1


@dataclass(frozen=True)
class Unseen:
    """A picture that nobody looks at: its hidden rating is known."""

    def read(self) -> Tensor:
        raise NotImplementedError

    def encoded(self) -> bytes:
        raise NotImplementedError


@dataclass(frozen=True)
class World:
    """Images, and what a voter without errors would go by.

    Attributes:
        candidates: the images; the id is the position.
        hidden: of each, on the scale where a logistic voter's odds are their exponentials.
    """

    candidates: Sequence[Candidate]
    hidden: np.ndarray

    def pairs(self) -> list[tuple[int, int]]:
        """All pairs of images of one prompt whose hidden ratings differ."""
        by_prompt: dict[str, list[int]] = {}
        for candidate in self.candidates:
            by_prompt.setdefault(candidate.prompt, []).append(candidate.id)
        pairs = (pair for group in by_prompt.values() for pair in combinations(group, 2))
        return [(one, other) for one, other in pairs if self.hidden[one] != self.hidden[other]]


def abstract(seed: int, images: int = 6, makers: int = 3) -> World:
    """Normal ratings: makers lie 0.5 apart, the images of a maker 1, all times 2, as standard deviations."""
    random = np.random.default_rng([seed, images])
    made_by = np.tile(np.arange(images) * makers // images, (PROMPTS, 1))
    hidden = 2 * (random.normal(0, 0.5, makers)[made_by] + random.normal(0, 1, made_by.shape))
    return _world(hidden, made_by, [f"maker {number}" for number in range(makers)])


def emoji(seed: int) -> World:
    """Held-out prompts, two images each of two generators and of the emoji world itself, as `emoji-judge` sees them."""
    prompts, judge = texts(load_prompts("emoji-heldout")), EmojiJudge()
    chosen = np.random.default_rng(seed).permutation(len(prompts))[:PROMPTS]
    kept = [prompts[number] for number in chosen]
    columns = {"compositions": real_images(seed)[torch.from_numpy(chosen)]}
    for name, teacher in (("emoji-onestep", "emoji-reference"), ("emoji-unet-onestep", "emoji-unet-reference")):
        reference = load_reference(teacher)
        condition = reference.encode(kept)
        columns[name] = one_step_column(load_generator(name), reference, condition, (2 * seed, 2 * seed + 1))
    scores = [scores_and_naming(judge, images, kept)[0].double().numpy() for images in columns.values()]
    hidden = np.concatenate(scores, axis=1)
    made_by = np.tile(np.repeat(np.arange(len(columns)), 2), (PROMPTS, 1))
    return _world(2 * hidden / hidden.std(axis=1, keepdims=True).mean(), made_by, list(columns))


def _world(hidden: np.ndarray, made_by: np.ndarray, makers: Sequence[str]) -> World:
    images = hidden.shape[1]
    candidates = [
        Candidate(number, f"prompt {number // images}", makers[maker], Unseen())
        for number, maker in enumerate(made_by.ravel().tolist())
    ]
    return World(candidates, hidden.ravel())


Voter = Callable[[int, int], float]


def _drawn(seed: int, one: int, other: int) -> float:
    """Uniform, and a function of the pair: all ways of picking meet the same voter."""
    return int.from_bytes(hashlib.sha256(f"{seed} {one} {other}".encode()).digest()[:8], "big") / 2**64


def erring(world: World, seed: int) -> Voter:
    """Says the opposite of what is true of a tenth of all pairs, however clear they are."""

    def vote(first: int, second: int) -> float:
        right = world.hidden[first] > world.hidden[second]
        return float(right == (_drawn(seed, *sorted((first, second))) >= NOISE))

    return vote


def logistic(world: World, seed: int) -> Voter:
    """Prefers the first with the probability that the ratings give it."""

    def vote(first: int, second: int) -> float:
        one, other = sorted((first, second))
        wins = _drawn(seed, one, other) < 1 / (1 + np.exp(world.hidden[other] - world.hidden[one]))
        return float(wins == (first == one))

    return vote
