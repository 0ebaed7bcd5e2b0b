"""Votes of somebody who prefers warm colours: patches of colour, a few of each prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from dipp_toolkit.preferences.fit.trainer import FitSettings
from dipp_toolkit.preferences.pair import Candidate, Comparison
from dipp_toolkit.preferences.vote_file import NewCandidate, VoteFile

SHORT = FitSettings(steps=60)
SIDE, IMAGES = 64, 3


@dataclass(frozen=True)
class Painted:
    """A picture in memory."""

    pixels: Tensor

    def read(self) -> Tensor:
        return self.pixels

    def encoded(self) -> bytes:
        return self.pixels.numpy().tobytes()


def warmth(images: Tensor) -> Tensor:
    """Red less blue."""
    return (images[..., 0, :, :] - images[..., 2, :, :]).mean((-1, -2))


def painted(prompts: int, seed: int = 0) -> Tensor:
    """Images of 8 by 8 patches, those of a prompt around one colour: `(prompts, 3, 3, 64, 64)`."""
    random = torch.Generator().manual_seed(seed)
    base = torch.rand(prompts, 1, 3, 1, 1, generator=random)
    patches = base + 0.1 * torch.randn(prompts, IMAGES, 3, 8, 8, generator=random)
    patches = patches + 0.1 * torch.randn(prompts, IMAGES, 3, 1, 1, generator=random)
    return patches.clamp(0, 1).repeat_interleave(8, -1).repeat_interleave(8, -2)


def prompt_of(number: int) -> str:
    """A prompt of the emoji world's words, or unknown ones."""
    return f"a cat number {number}"


def warm_votes(prompts: int = 20, seed: int = 0) -> list[Comparison]:
    """All pairs of all prompts' images, without errors."""
    votes = []
    for number, images in enumerate(painted(prompts, seed)):
        candidates = [
            Candidate(number * IMAGES + row, prompt_of(number), "painter", Painted(image))
            for row, image in enumerate(images)
        ]
        for first in range(IMAGES):
            for second in range(first + 1, IMAGES):
                outcome = float(warmth(images[first]) > warmth(images[second]))
                votes.append(Comparison(candidates[first], candidates[second], outcome, "warm"))
    return votes


def voted_folder(place: Path, prompts: int = 8) -> Path:
    """A folder of such votes."""
    with VoteFile.open(place, create=True) as file:
        images = painted(prompts)
        file.add(
            NewCandidate(prompt_of(number), "painter", image) for number, own in enumerate(images) for image in own
        )
        by_prompt: dict[str, list[Candidate]] = {}
        for candidate in file.candidates():
            by_prompt.setdefault(candidate.prompt, []).append(candidate)
        for candidates in by_prompt.values():
            for first, second in pairwise(candidates):
                warmer = warmth(first.picture.read()) > warmth(second.picture.read())
                file.vote(file.show("warm", first.id, second.id).id, "first" if warmer else "second")
    return place


def agreement_with_warmth(reward: object, prompts: int = 40, seed: int = 9) -> float:
    """The share of pairs of other prompts that a reward orders by warmth."""
    images = painted(prompts, seed)
    names: Sequence[str] = [prompt_of(1000 + number) for number in range(prompts) for _ in range(IMAGES)]
    with torch.no_grad():
        scores = reward(images.flatten(0, 1), names).unflatten(0, (prompts, IMAGES))  # type: ignore[operator]
    above, below = torch.triu_indices(IMAGES, IMAGES, 1)
    right = warmth(images)
    return ((scores[:, above] > scores[:, below]) == (right[:, above] > right[:, below])).float().mean().item()
