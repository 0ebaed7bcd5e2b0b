"""`reward_tf32`: torch's switches inside a reward's forward and backward pass, and what they are again after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from dipp_toolkit.objective.terms import reward as reward_module
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.utils.precision import tf32_products

GPU = torch.device("cuda")


def switches() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def _both_off() -> Iterator[None]:
    before = switches()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class Watched:
    """A reward that notes the switches in its forward and in its backward pass."""

    differentiable = True

    def __init__(self) -> None:
        self.seen: list[tuple[bool, bool]] = []

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        self.seen.append(switches())
        scores = images.mean((1, 2, 3))
        if scores.requires_grad:
            scores.register_hook(lambda gradient: self.seen.append(switches()))
        return scores


@pytest.mark.parametrize("tf32", [True, False])
def test_a_reward_sees_the_switches_and_nothing_else_does(tf32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_module, "tf32_products", lambda device, wanted: tf32_products(GPU, wanted))
    watched = Watched()
    decoding: list[tuple[bool, bool]] = []

    def decode(latents: Tensor) -> Tensor:
        decoding.append(switches())
        return latents

    term = RewardTerm("watched", watched, decode, tf32=tf32)
    term.differentiate_images(torch.rand(2, 3, 4, 4), ["a", "b"])
    term.score(torch.rand(2, 3, 4, 4), ["a", "b"])
    assert watched.seen == [(tf32, tf32)] * 3  # forward and backward, then scores alone
    assert decoding == [(False, False)] and switches() == (False, False)


def test_a_reward_that_fails_leaves_the_switches_as_they_were() -> None:
    torch.backends.cudnn.allow_tf32 = True
    with pytest.raises(ZeroDivisionError), tf32_products(GPU):
        assert switches() == (True, True)
        raise ZeroDivisionError
    assert switches() == (False, True)


def test_a_cpu_has_none() -> None:
    with tf32_products(torch.device("cpu")):
        assert switches() == (False, False)
