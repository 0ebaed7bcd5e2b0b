"""The order of prompts: permutations, fresh each epoch, the same bits for ever."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from dipp_toolkit import prompt_order
from dipp_toolkit.prompt_order import LISTED, PromptOrder

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
    assert all(sorted(one) == list(range(count)) for one in epochs)
    assert sum(one == two for one, two in zip(*epochs, strict=True)) < 20
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
    permuted, sizes = prompt_order._permuted, []

    def counted(positions: np.ndarray, count: int, keys: np.ndarray) -> np.ndarray:
        sizes.append(len(positions))
        return permuted(positions, count, keys)

    monkeypatch.setattr(prompt_order, "_permuted", counted)
    monkeypatch.setattr(torch, "randperm", lambda *given, **named: pytest.fail("an epoch was listed"))
    order = PromptOrder(10**7, 0)
    taken = order.take(10**7 - 16, 32)
    assert len(set(taken[:16])) == len(set(taken[16:])) == 16 and max(taken) < 10**7
    assert sizes == [16, 16]
