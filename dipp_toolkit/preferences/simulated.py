"""A reward as a voter: what a loop of votes can be tried with before people are asked."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from ..errors import RequestError
from ..protocols import Reward
from ..rewards.groups import refuse_alone
from ..rewards.scores import ask
from .pair import EQUAL, FIRST, SECOND, Candidate


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
        check_noise(noise)
        refuse_alone(label, reward, "A simulated voter")
        self.reward, self.noise, self.seed, self.name, self.label = reward, noise, seed, name, label
        self._looked_at: dict[Candidate, tuple[float, str]] = {}

    def score(self, candidate: Candidate) -> float:
        """The reward's score of an image, which is looked at once.

        Raises:
            RequestError: the image is missing or damaged.
        """
        return self._look(candidate)[0]

    def _look(self, candidate: Candidate) -> tuple[float, str]:
        """An image's score, and the digest of its file, which it is known by."""
        if candidate not in self._looked_at:
            images: Any = candidate.picture.read()[None]
            with torch.no_grad():
                score = float(ask(self.label, self.reward, images, [candidate.prompt])[0])
            self._looked_at[candidate] = score, hashlib.sha256(candidate.picture.encoded()).hexdigest()
        return self._looked_at[candidate]

    def prefers(self, first: Candidate, second: Candidate) -> str:
        """What it would say without errors; `equal` of equal scores."""
        gap = self.score(first) - self.score(second)
        return FIRST if gap > 0 else SECOND if gap < 0 else EQUAL

    def choose(self, first: Candidate, second: Candidate, *, again: bool = False) -> str:
        """`first`, `second`, or of equal scores `equal`.

        Args:
            first: the left image.
            second: the right image.
            again: whether the voter had been asked about this pair before.
        """
        images = sorted(self._look(image)[1] for image in (first, second))
        told = "\0".join([str(self.seed), self.name, first.prompt, *images, str(again)]).encode()
        drawn = int.from_bytes(hashlib.sha256(told).digest()[:8], "big") / 2**64
        said = self.prefers(first, second)
        return said if drawn >= self.noise else {FIRST: SECOND, SECOND: FIRST}.get(said, said)


def check_noise(noise: float) -> None:
    """Refuse what is no probability of an error.

    Raises:
        RequestError: it is below 0 or above one half.
    """
    if not 0 <= noise <= 0.5:
        raise RequestError(f"A simulated voter's noise is {noise:g}; expected 0 to 0.5, the probability of an error.")
