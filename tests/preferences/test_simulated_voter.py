"""A reward that votes: it prefers what scores higher, and errs as often as it is told to."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.preferences.pair import Candidate
from dipp_toolkit.preferences.simulated import SimulatedVoter


@dataclass(frozen=True)
class Grey:
    """A picture of one grey."""

    level: float

    def read(self) -> Tensor:
        return torch.full((3, 4, 4), self.level)

    def encoded(self) -> bytes:
        return str(self.level).encode()


class Brightness:
    differentiable = True

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        return images.mean((1, 2, 3))


CANDIDATES = [Candidate(number, "grey", "maker", Grey(number / 400)) for number in range(400)]


def test_it_errs_as_often_as_it_is_told_to() -> None:
    voter = SimulatedVoter(Brightness(), noise=0.1)
    pairs = [(first, second) for first in CANDIDATES[:50] for second in CANDIDATES[50:90]]
    errors = sum(voter.choose(*pair) != "second" for pair in pairs) / len(pairs)
    assert errors == pytest.approx(0.1, abs=4 * (0.09 / len(pairs)) ** 0.5)


def test_what_it_says_depends_on_nothing_but_the_pair() -> None:
    pairs = [(CANDIDATES[number], CANDIDATES[number + 7]) for number in range(300)]
    forward, backward = SimulatedVoter(Brightness(), 0.4), SimulatedVoter(Brightness(), 0.4)
    said = {pair[0].id: forward.choose(*pair) for pair in pairs}
    assert said == {pair[0].id: backward.choose(*pair) for pair in reversed(pairs)}
    assert said != {pair[0].id: SimulatedVoter(Brightness(), 0.4, seed=1).choose(*pair) for pair in pairs}


def test_asked_again_it_may_say_otherwise_and_the_sides_do_not_matter() -> None:
    voter = SimulatedVoter(Brightness(), 0.4)
    pairs = [(CANDIDATES[number], CANDIDATES[number + 7]) for number in range(300)]
    first = [voter.choose(*pair) for pair in pairs]
    assert [voter.choose(*pair, again=True) for pair in pairs] != first
    swapped = [voter.choose(second, one) for one, second in pairs]
    assert all(one != other for one, other in zip(first, swapped, strict=True))


def test_noise_out_of_range() -> None:
    with pytest.raises(RequestError, match=r"0 to 0\.5"):
        SimulatedVoter(Brightness(), 0.6)


def test_equal_scores_are_a_tie() -> None:
    same = [Candidate(number, "grey", "maker", Grey(0.5)) for number in range(2)]
    assert SimulatedVoter(Brightness(), 0.4).choose(*same) == "equal"
