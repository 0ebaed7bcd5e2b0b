"""The order of prompts: permutations, fresh each epoch, the same bits for ever."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from dipp_toolkit.prompts import sampler
from dipp_toolkit.prompts.sampler import LISTED, NoisesOfPrompts, PromptOrder

COUNTS = [LISTED + 1, 100_003, 2**18, 2**18 + 1]
FIRST = [73744, 67807, 3091, 579, 67293]
DIGEST = "d62b3ecc5e02fa2091b7971a29026afe83a168785ebb4aa5bbc39b8d0c4ecc80"


def test_few_prompts_are_in_the_order_they_always_were() -> None:
    for count in (1, 7, 1000, LISTED):
        generator = torch.Generator().manual_seed(5 * 1_000_003 + 2)
        expected = torch.randperm(count, generator=generator).tolist()
        assert PromptOrder(count, 5).take(2 * count, count) == expected


@pytest.mark.parametrize("count", COUNTS)
def test_every_epoch_of_many_is_a_fresh_permutation(count: int) -> None:
    order = PromptOrder(count, 3)
    epochs = [order.take(epoch * count, count) for epoch in range(2)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert sum(first == second for first, second in zip(*epochs, strict=True)) < 20
    assert order.take(count - 40, 100) == epochs[0][-40:] + epochs[1][:60]
    assert PromptOrder(count, 4).take(0, count) != epochs[0]


@pytest.mark.parametrize("count", COUNTS)
def test_many_look_shuffled(count: int) -> None:
    """Statistics that a random permutation keeps within these bounds but once in ten thousand times."""
    order, at = np.array(PromptOrder(count, 11).take(0, count)), np.arange(count)

    def correlation(one: np.ndarray, two: np.ndarray) -> float:
        return float(np.corrcoef(one, two)[0, 1]) * np.sqrt(len(one))

    assert abs(correlation(order, at)) < 4 and abs(correlation(order[1:], order[:-1])) < 4
    for bit in range(10):
        assert abs(correlation(order >> bit & 1, at >> bit & 1)) < 4.5
    assert (order == at).sum() < 10 and (np.diff(order) == 1).sum() < 10
    cells = np.histogram2d(at, order, bins=16)[0]
    # Chi-squared of 225 degrees of freedom: 225 on average, with a deviation of 21.
    assert 145 < ((cells - count / 256) ** 2 / (count / 256)).sum() < 325


def test_the_order_of_many_is_the_same_everywhere() -> None:
    assert PromptOrder(100_000, 0).take(0, 5) == FIRST
    digest = hashlib.sha256(np.array(PromptOrder(100_000, 0).take(0, 200_000), "<i8").tobytes()).hexdigest()
    assert digest == DIGEST


def test_ten_million_are_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A position is worked out where it is asked for: at most a few dozen numbers at a time, none of all."""
    shuffled, sizes = sampler.permuted, []

    def counted(positions: np.ndarray, count: int, keys: np.ndarray) -> np.ndarray:
        sizes.append(len(positions))
        return shuffled(positions, count, keys)

    monkeypatch.setattr(sampler, "permuted", counted)
    monkeypatch.setattr(torch, "randperm", lambda *given, **named: pytest.fail("an epoch was listed"))
    order = PromptOrder(10**7, 0)
    taken = order.take(10**7 - 16, 32)
    assert len(set(taken[:16])) == len(set(taken[16:])) == 16 and max(taken) < 10**7
    assert sizes == [16, 16]


@pytest.mark.parametrize("count", [7, 100_000])
def test_positions_are_looked_up_in_any_order(count: int) -> None:
    order = PromptOrder(count, 2)
    whole = order.take(0, 3 * 7)
    positions = [3, 3, 20, 0, 7, 8]
    assert order.at(positions) == [whole[position] for position in positions]
    assert order.at([]) == []


@pytest.mark.parametrize("each", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 5, 6])
def test_every_prompt_has_all_its_noises_in_a_row(each: int, length: int) -> None:
    """Also where a batch ends in the middle of a prompt, and where others take prompts of the order in between."""
    noises, start, rows, new = NoisesOfPrompts(each), 0, [], []
    for _ in range(30):
        start += 4  # the assistant's
        positions, following = noises.take(start, length)
        assert len(positions) == length
        rows += positions
        new.append(noises.new_prompts(length))
        assert new[-1] == len(set(positions) - {noises.position if noises.owed else None})
        start += new[-1]
        noises = NoisesOfPrompts.from_state(following.state_dict())
    whole = 30 * length // each * each
    groups = [rows[at : at + each] for at in range(0, whole, each)]
    assert all(len(set(group)) == 1 for group in groups)
    assert [group[0] for group in groups] == sorted({group[0] for group in groups})
    assert sum(new) == -(-30 * length // each)


def test_one_noise_a_prompt_is_the_plain_order() -> None:
    assert NoisesOfPrompts().take(10, 4) == ([10, 11, 12, 13], NoisesOfPrompts(1, 13, 0))
    assert NoisesOfPrompts(2).take(10, 5) == ([10, 10, 11, 11, 12], NoisesOfPrompts(2, 12, 1))
