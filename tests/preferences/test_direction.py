"""A reward sees what no column shows: that preferred and rejected images are swapped."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.preferences.direction import MOST_PROMPTS, SIGNIFICANT, check_direction
from dipp_toolkit.preferences.pair import Candidate, Comparison


@dataclass(frozen=True)
class Grey:
    level: float

    def read(self) -> Tensor:
        return torch.full((3, 4, 4), self.level)

    def encoded(self) -> bytes:
        return b""


class Brightness:
    differentiable = True
    looked = 0

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        self.looked += len(images)
        return images.mean((1, 2, 3))


def votes(outcomes: list[float], prompts: int, repeat: bool = False) -> list[Comparison]:
    """Votes on a light first image and a dark second one, spread over prompts."""

    def pair(number: int) -> tuple[Candidate, Candidate]:
        prompt = f"prompt {number % prompts}"
        return (
            Candidate(2 * number, prompt, "", Grey(0.9)),
            Candidate(2 * number + 1, prompt, "", Grey(0.1)),
        )

    return [Comparison(*pair(number), outcome, "ann", repeat) for number, outcome in enumerate(outcomes)]


def test_right_and_swapped() -> None:
    right = check_direction(votes([1.0] * 20, 20), Brightness(), "brightness")
    assert (right.agreed, right.decided, right.prompts_for, right.swapped) == (20, 20, 20, False)
    assert right.sentence() == "brightness agrees with 20 of 20 votes."
    swapped = check_direction(votes([0.0] * 20, 20), Brightness(), "brightness")
    assert swapped.swapped
    assert swapped.p_value == pytest.approx(0.5**20)
    assert "may be swapped: brightness agrees with only 0 of 20 votes" in swapped.sentence()


def test_the_test_is_the_sign_test_over_prompts() -> None:
    direction = check_direction(votes([0.0] * 11 + [1.0] * 4, 15), Brightness())
    assert direction.p_value == pytest.approx(binomtest(4, 15, alternative="less").pvalue)
    assert not direction.swapped


def test_many_votes_on_few_prompts_show_nothing() -> None:
    direction = check_direction(votes([0.0] * 300, 3), Brightness())
    assert (direction.agreed, direction.decided, direction.prompts_against) == (0, 300, 3)
    assert direction.p_value == pytest.approx(1 / 8) and not direction.swapped


def test_votes_that_know_nothing_of_the_reward_are_seldom_called_swapped() -> None:
    called = 0
    for seed in range(200):
        drawn = torch.randint(0, 2, (40,), generator=torch.Generator().manual_seed(seed)).double().tolist()
        called += check_direction(votes(drawn, 40), Brightness()).swapped
    assert called <= 2  # 0.2 are expected of 200 at most, and 3 come up once in 900 times


def test_ties_and_repetitions_do_not_count_and_images_are_looked_at_once() -> None:
    with pytest.raises(RequestError, match="no ties"):
        check_direction([*votes([0.5] * 4, 4), *votes([0.0] * 4, 4, repeat=True)], Brightness())
    reward = Brightness()
    direction = check_direction(votes([1.0] * 5, 5) * 3, reward)
    assert (direction.decided, reward.looked) == (15, 10)


def test_few_prompts_are_asked_about() -> None:
    direction = check_direction(votes([1.0] * (2 * MOST_PROMPTS), 2 * MOST_PROMPTS), Brightness())
    assert direction.decided == MOST_PROMPTS
    assert 0 < SIGNIFICANT < 0.05
