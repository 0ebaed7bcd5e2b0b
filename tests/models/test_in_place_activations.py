"""Activations in place where no graph is kept: the same bits, gradients and names."""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers.models.attention import FeedForward

from dipp_toolkit.models.in_place_activations import use_in_place_activations


def test_values_and_gradients_are_those_of_before() -> None:
    torch.manual_seed(0)
    plain: Any = FeedForward(8, activation_fn="gelu-approximate")
    ours, x = copy.deepcopy(plain), torch.randn(3, 5, 8)
    use_in_place_activations(ours)
    for network in (ours, copy.deepcopy(ours)):
        for narrow in (False, True):
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=narrow):
                assert torch.equal(network(x), plain(x))
        network(x).square().sum().backward()
        plain.zero_grad()
        plain(x).square().sum().backward()
        for (name, one), (known, other) in zip(network.named_parameters(), plain.named_parameters(), strict=True):
            assert name == known and torch.equal(one.grad, other.grad)


def test_the_product_is_overwritten_without_a_graph_alone() -> None:
    ours: Any = FeedForward(8, activation_fn="gelu-approximate")
    use_in_place_activations(ours)
    made: list[torch.Tensor] = []
    ours.net[0].proj.register_forward_hook(lambda module, inputs, output: made.append(output))
    with torch.no_grad():
        assert ours.net[0](torch.randn(2, 8)).data_ptr() == made[0].data_ptr()
    assert ours.net[0](torch.randn(2, 8)).data_ptr() != made[1].data_ptr()
