"""Adapted layers compute what peft's own compute, from the same weights, in fewer calls."""

from __future__ import annotations

import copy
import weakref
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
from dipp_toolkit.models.paired_products import ConvolutionPair, LinearPair
from dipp_toolkit.models.shared_casts import SharedCasts
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
    plain = nn.Sequential(*[nn.Linear(WIDTH, WIDTH, dtype=torch.bfloat16) for _ in range(4)])
    ours = adapted(plain, AdapterSettings(rank=4, alpha=4.0))
    x = torch.randn(64, WIDTH)
    with Named() as counted, pass_autocast("cpu", torch.bfloat16):
        output = ours(x)
    assert counted.names["_foreach_copy_"] == 1
    assert counted.names["addmm_"] == counted.names["mm"] == counted.names["addmm"] == 4
    assert counted.names["mul"] == counted.names["add"] == 0
    with Named() as counted:
        output.sum().backward()
    assert counted.names["_foreach_copy_"] == 1
    assert counted.names["mm"] == 4 * 4 - 1  # nothing flows to the input of the first layer
    assert counted.names["addmm_"] == 3
    assert counted.names["add"] == 0
    with Named() as counted, torch.no_grad():
        ours.float()(x)
    assert counted.names["addmm"] == 8
    assert counted.names["mm"] == 0


@pytest.mark.parametrize("graph", [True, False])
def test_layers_of_one_input_share_its_cast(graph: bool) -> None:
    plain = nn.ModuleList([nn.Linear(WIDTH, WIDTH, dtype=torch.bfloat16) for _ in range(3)])
    layers = adapted(plain, AdapterSettings(rank=4, alpha=4.0))
    layers.forward = lambda x: sum(layer(x) for layer in layers)  # type: ignore[assignment]
    with Named() as counted, torch.set_grad_enabled(graph), pass_autocast("cpu", torch.bfloat16):
        x = torch.randn(2, 8, WIDTH, requires_grad=graph) * 2
        first = layers(x)
        assert counted.names["_to_copy"] == 1
        x.mul_(2)
        assert not torch.equal(layers(x), first)


def test_shared_casts_keep_nothing_alive() -> None:
    casts = SharedCasts()
    for leaf in (True, False):
        x = torch.randn(4, requires_grad=True)
        x = x if leaf else x * 2
        kept = [weakref.ref(x), weakref.ref(casts.of(x, torch.bfloat16))]
        assert kept[1]() is None
        with torch.no_grad():
            cast = casts.of(x, torch.bfloat16)
            assert casts.of(x, torch.bfloat16) is cast
        assert casts.of(x, torch.bfloat16).requires_grad
        assert casts.of(x, torch.float16).dtype == torch.float16
        del x
        assert kept[0]() is None


@pytest.mark.parametrize("scale", [1.0, 1.5])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_both_ways_back_are_right(scale: float, form: torch.memory_format) -> None:
    """First and second derivatives against differences, in float64."""
    random = torch.Generator().manual_seed(0)

    def tensor(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    x, a, b, weight, bias = tensor(3, 4), tensor(2, 4), tensor(5, 2), tensor(5, 4), tensor(5)
    given = [value.requires_grad_(True) for value in (x, a, b)]
    line = lambda x, a, b: LinearPair.apply(x, weight, bias, a, b, scale)  # noqa: E731
    torch.testing.assert_close(line(x, a, b), x @ (weight + scale * b @ a).T + bias)
    assert torch.autograd.gradcheck(line, given)
    assert torch.autograd.gradgradcheck(line, given)
    x, a, b, weight = (
        tensor(2, 3, 5, 5).to(memory_format=form),
        tensor(2, 3, 3, 3),
        tensor(4, 2, 1, 1),
        tensor(4, 3, 3, 3),
    )
    given = [value.requires_grad_(True) for value in (x, a, b)]
    places = (2, 2), (1, 1), (1, 1)
    fold = lambda x, a, b: ConvolutionPair.apply(x, weight, None, a, b, scale, places)  # noqa: E731
    together = weight + scale * torch.einsum("or,ri...->oi...", b[:, :, 0, 0], a)
    torch.testing.assert_close(fold(x, a, b), nn.functional.conv2d(x, together, None, *places[:2]))
    assert torch.autograd.gradcheck(fold, given)
    assert torch.autograd.gradgradcheck(fold, given)


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
