"""A reward as a voter: what a loop of votes can be tried with before people are asked."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from ..errors import RequestError
from ..protocols import Reward
from ..rewards.groups import refuse_alone
from ..rewards.scores import ask
from .pair import FIRST, SECOND, Candidate


class SimulatedVoter:
    r"""Prefers the image with the higher score, and errs with a fixed probability.

    Whether it errs is a function of the seed, its name, the two images and whether it is asked again, and not of the
    order of questions: two ways of picking pairs meet the same voter, and so does a run that was interrupted.

    Args:
        reward: what it prefers by; it looks at single images.
        noise: the probability that it says the opposite, 0 to 0.5.
        seed: of its errors.
        name: of the voter.
        label: of the reward, for messages.

    Raises:
        RequestError: the noise is out of range, or the reward compares the images of a prompt.
    """

    def __init__(
        self, reward: Reward, noise: float = 0.1, seed: int = 0, name: str = "simulated", label: str = "reward"
    ):

        if not 0 <= noise <= 0.5:
            raise RequestError(
                f"A simulated voter's noise is {noise:g}; expected 0 to 0.5, the probability of an error."
            )
        refuse_alone(label, reward, "A simulated voter")
        self.reward, self.noise, self.seed, self.name, self.label = reward, noise, seed, name, label
        self._scores: dict[int, float] = {}

    def score(self, candidate: Candidate) -> float:
        """The reward's score of an image, which is looked at once.

        Raises:
            RequestError: the image is missing or damaged.
        """
        if candidate.id not in self._scores:
            images: Any = candidate.picture.read()[None]
            with torch.no_grad():
                self._scores[candidate.id] = float(ask(self.label, self.reward, images, [candidate.prompt])[0])
        return self._scores[candidate.id]

    def prefers(self, first: Candidate, second: Candidate) -> str:
        """What it would say without errors."""
        return FIRST if self.score(first) >= self.score(second) else SECOND

    def choose(self, first: Candidate, second: Candidate, *, again: bool = False) -> str:
        """`first` or `second`.

        Args:
            first: the left image.
            second: the right image.
            again: whether the voter had been asked about this pair before.
        """
        told = f"{self.seed}\0{self.name}\0{sorted((first.id, second.id))}\0{again}".encode()
        drawn = int.from_bytes(hashlib.sha256(told).digest()[:8], "big") / 2**64
        said = self.prefers(first, second)
        return said if drawn >= self.noise else SECOND if said == FIRST else FIRST
