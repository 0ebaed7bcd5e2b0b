"""Adapted layers compute what peft's own compute, from the same weights, in fewer calls."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners import lora as peft_lora
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from dipp_toolkit.models.lora import AdapterSettings, adapted, merged
from dipp_toolkit.models.lora_layers import PairedConv2d, PairedLinear, compute_in_pairs, forget_pairs
from dipp_toolkit.models.weight_sharing import trainable_parameters
from dipp_toolkit.utils.precision import pass_autocast

WIDTH, SETTINGS = 16, AdapterSettings(rank=4, alpha=6.0)
PEFT = {PairedLinear: peft_lora.Linear, PairedConv2d: peft_lora.Conv2d}


class Small(nn.Module):
    """Convolutions with a stride, padding and one of a single pixel, and linear layers with and without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(8, WIDTH, 3, stride=2, padding=1)
        self.pixel = nn.Conv2d(WIDTH, WIDTH, 1)
        self.attention = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.last = nn.Linear(2 * WIDTH, WIDTH)
        self.recomputed = False

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.pixel(self.first(x)).flatten(2).transpose(1, 2)

        def block(given: Tensor) -> Tensor:
            return self.last(nn.functional.silu(self.attention(given)))

        result: Tensor = checkpoint(block, tokens, use_reentrant=False) if self.recomputed else block(tokens)
        return result


def network(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    made = adapted(Small(), SETTINGS, **settings)
    with torch.no_grad():
        for parameter in trainable_parameters(made):
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def by_peft(network: nn.Module) -> nn.Module:
    """A copy whose layers compute as peft wrote them."""
    theirs = copy.deepcopy(network)
    for layer in theirs.modules():
        layer.__class__ = PEFT.get(type(layer), type(layer))
    forget_pairs(theirs)
    return theirs


def inputs() -> Tensor:
    return torch.randn(3, 8, 8, 8, generator=torch.Generator().manual_seed(1))


def gradients(network: nn.Module, dtype: torch.dtype | None = None) -> list[Tensor]:
    """Of the weights and of the input, and the output."""
    x = inputs().to(next(network.parameters()).dtype).requires_grad_(True)
    with pass_autocast("cpu", dtype):
        output = network(x)
    parameters = trainable_parameters(network)
    return [*torch.autograd.grad(output.float().square().mean(), [x, *parameters]), output.detach()]


def distances(these: list[Tensor], those: list[Tensor]) -> list[float]:
    """Relative differences, tensor by tensor."""
    pairs = zip(these, those, strict=True)
    return [float((a.double() - b.double()).norm() / b.double().norm()) for a, b in pairs]


def distance(these: list[Tensor], those: list[Tensor]) -> float:
    """The largest of them."""
    return max(distances(these, those))


class Named(TorchDispatchMode):
    """Counts calls by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[func._overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_every_plain_layer_is_computed_in_pairs() -> None:
    kinds = Counter(type(layer) for layer in network().modules())
    assert (kinds[PairedLinear], kinds[PairedConv2d]) == (2, 2)


@pytest.mark.parametrize("recomputed", [False, True])
def test_float32_equals_peft(recomputed: bool) -> None:
    ours = network()
    theirs = by_peft(ours)
    ours.recomputed = theirs.recomputed = recomputed  # type: ignore[assignment]
    assert distance(gradients(ours), gradients(theirs)) < 1e-6
    with torch.no_grad():
        torch.testing.assert_close(ours(inputs()), theirs(inputs()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recomputed", [False, True])
def test_half_precision_is_as_near_to_the_truth_as_peft(recomputed: bool) -> None:
    """Both against float64, the mean over gradients and output; where the sum is rounded differs, and how well not."""
    ours_off, theirs_off = [], []
    for seed in range(4):
        ours = network()
        draws = torch.Generator().manual_seed(seed)
        for parameter in ours.parameters():
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=draws))
        theirs = by_peft(ours)
        truth = gradients(by_peft(ours).double())
        ours.recomputed = theirs.recomputed = recomputed  # type: ignore[assignment]
        ours_off += distances(gradients(ours, torch.bfloat16), truth)
        theirs_off += distances(gradients(theirs, torch.bfloat16), truth)
    assert max(ours_off) < 0.02
    assert sum(ours_off) < 1.1 * sum(theirs_off)


def test_a_graph_that_waits_is_right_after_a_pass_without_one() -> None:
    """A block is recomputed with casts that a later pass made without a graph."""
    ours = network()
    ours.recomputed = True  # type: ignore[assignment]
    plain = gradients(ours, torch.bfloat16)
    x = inputs().requires_grad_(True)
    with pass_autocast("cpu", torch.bfloat16):
        output = ours(x)
        with torch.no_grad():
            ours(x)
    with pass_autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(output.float().square().mean(), [x, *trainable_parameters(ours)])
    assert distance(list(found), plain[:-1]) == 0


@torch.no_grad()
def test_small_updates_are_felt_better_than_in_a_sum_in_half_precision() -> None:
    """Why weights in bfloat16 are not added up: a thousandth of W is half lost between two neighbours of W."""
    torch.manual_seed(0)
    base = nn.Linear(256, 256, bias=False).bfloat16()
    ours, x = adapted(nn.Sequential(base), AdapterSettings(rank=8, alpha=8.0)), torch.randn(512, 256).bfloat16()
    a, b = ours[0].weights()
    b.normal_().mul_(1e-3 * base.weight.float().norm() / (b @ a).norm())
    truth = x.double() @ (b.double() @ a.double()).T
    with pass_autocast("cpu", torch.bfloat16):
        plain, pair = base(x), ours(x)
    rounded = x @ (base.weight + b @ a).bfloat16().T
    felt = [
        float(nn.functional.cosine_similarity((output - plain).double().flatten(), truth.flatten(), 0))
        for output in (pair, rounded)
    ]
    assert felt[0] > 0.55
    assert felt[1] < 0.4


def test_calls_of_a_pass() -> None:
    """With a graph: product, two more, and no scaling, no addition, no cast by layer; without one: sum and product."""
    ours = adapted(nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(4)]), AdapterSettings(rank=4, alpha=4.0))
    x = torch.randn(64, WIDTH)
    with Named() as counted, pass_autocast("cpu", torch.bfloat16):
        output = ours(x)
    assert counted.names["_foreach_copy_"] == 1
    assert counted.names["addmm_"] == counted.names["mm"] == counted.names["addmm"] == 4
    assert counted.names["mul"] == counted.names["add"] == 0
    with Named() as counted:
        output.sum().backward()
    assert counted.names["_foreach_copy_"] == 1
    assert counted.names["mm"] == 5 * 4 - 2  # nothing flows to the input of the first layer
    with Named() as counted, torch.no_grad():
        ours(x)
    assert counted.names["addmm"] == 8
    assert counted.names["mm"] == 0


def test_what_is_not_plain_is_computed_by_peft() -> None:
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["attention", "last"], lora_dropout=0.1)
    made = inject_adapter_in_model(config, Small())
    compute_in_pairs(made)
    assert not [layer for layer in made.modules() if isinstance(layer, PairedLinear)]
    assert made(inputs()).shape == (3, 16, WIDTH)


def test_adapters_that_are_off_are_off() -> None:
    ours, x = network(), inputs()
    on = ours(x)
    for layer in ours.modules():
        if isinstance(layer, PairedLinear | PairedConv2d):
            layer.enable_adapters(False)
    assert not torch.equal(on, ours(x))
    for layer in ours.modules():
        if isinstance(layer, PairedLinear | PairedConv2d):
            layer.enable_adapters(True)
    assert torch.equal(on, ours(x))


def test_a_layer_by_itself_sees_an_update_after_a_pass() -> None:
    ours, x = network(), torch.randn(5, WIDTH)
    with pass_autocast("cpu", torch.bfloat16), torch.no_grad():
        ours(inputs())
        before = ours.attention(x)
        for parameter in trainable_parameters(ours):
            parameter.mul_(2)
        assert (ours.attention(x) - before).abs().max() > 1e-3


def test_copies_and_merged_networks_can_be_made_after_a_pass() -> None:
    ours = network()
    with pass_autocast("cpu", torch.bfloat16):
        ours(inputs())
    assert all("narrow" not in vars(layer) for layer in copy.deepcopy(ours).modules())
    plain = merged(ours)
    torch.testing.assert_close(plain(inputs()), ours(inputs()), rtol=1e-5, atol=1e-5)
    assert not plain._forward_pre_hooks


def test_compiled_layers_have_no_graph_break_and_outlive_updates() -> None:
    ours = network()
    counter = CompileCounter()
    ours.last.compile(backend=counter, fullgraph=True)
    for _ in range(3):
        found = gradients(ours, torch.bfloat16)
        with torch.no_grad():
            for parameter in trainable_parameters(ours):
                parameter.mul_(0.9)
    assert counter.frame_count == 1
    assert all(torch.isfinite(tensor).all() for tensor in found)
