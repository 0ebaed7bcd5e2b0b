"""Compiled blocks: whole, shared by all of a class and shape, equal to eager ones, and eager in copies."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dipp_toolkit.diffusion.denoiser import Denoiser
from dipp_toolkit.models.compilation import (
    CACHE,
    compile_blocks,
    compiled_passes,
    forget_compilations,
    keep_compilations,
    repeated_blocks,
    report,
    uncompile_blocks,
)
from dipp_toolkit.models.launches import counted_launches, counting_inductor, launches_in
from dipp_toolkit.models.loading import load_reference
from dipp_toolkit.models.lora import AdapterSettings, adapted
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.models.weight_sharing import weight_sharing_copy

FAMILIES = {
    "PixArtAlphaPipeline": 2, "StableDiffusionPipeline": 12, "StableDiffusionXLPipeline": 16,
    "StableDiffusion3Pipeline": 2, "FluxPipeline": 2,
}  # fmt: skip
"""Blocks of each twin's network that are compiled."""

USUAL = {
    ("PixArtAlphaPipeline", "lora", True), ("StableDiffusionPipeline", "full", False),
    ("StableDiffusion3Pipeline", "full", True), ("FluxPipeline", "full", True),
}  # fmt: skip
"""What is not left to the exhaustive tests."""


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm, self.inner, self.outer = nn.LayerNorm(width), nn.Linear(width, 16), nn.Linear(16, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(torch.tanh(self.inner(self.norm(x))))


class Stubborn(Block):
    """A block that reads a number in Python, which ends a graph."""

    def forward(self, x: Tensor) -> Tensor:
        print(end="")
        return super().forward(x) if float(x.detach().sum()) < 1e9 else x


class Tower(nn.Module):
    """Equal blocks in a row."""

    def __init__(self, kind: type[Block] = Block, depth: int = 3) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[kind() for _ in range(depth)])

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv(CACHE, str(tmp_path / "compiled"))
    forget_compilations()
    yield
    forget_compilations()


def gradients_of(denoiser: Denoiser, x: Tensor, condition: Any) -> list[Tensor]:
    """A pass with a graph and its gradients, and one without a graph."""
    network = denoiser.network
    network.zero_grad(set_to_none=True)
    times = torch.full((len(x),), 0.5)
    output = denoiser.predict_x0(x, times, condition)
    output.square().mean().backward()
    with torch.no_grad():
        again = denoiser.predict_x0(x, times, condition)
    return [output.detach(), again, *(weight.grad for weight in network.parameters() if weight.grad is not None)]


@pytest.mark.first_case
@pytest.mark.parametrize(
    ("pipeline", "mode", "checkpointing"),
    [
        pytest.param(*case, marks=[] if case in USUAL else [pytest.mark.exhaustive])
        for case in product(FAMILIES, ("full", "lora"), (False, True))
    ],
)
def test_blocks_of_every_family_are_whole_and_equal_to_eager_ones(
    pipeline: str, mode: str, checkpointing: bool, tmp_path: Path
) -> None:
    reference: Any = load_reference(str(write_twin(pipeline, tmp_path / "twin")))
    network = reference.denoiser.network
    network = adapted(network, AdapterSettings(2, 2.0)) if mode == "lora" else network.train().requires_grad_(True)
    if checkpointing:
        network.enable_gradient_checkpointing()
    denoiser, condition = replace(reference.denoiser, network=network), reference.encode(["a dog", "a cat"])
    x = torch.randn(2, *reference.latent_shape, generator=torch.Generator().manual_seed(0))
    expected, names = gradients_of(denoiser, x, condition), list(network.state_dict())
    # The backend that changes nothing: what is shown is that each block is one graph, and how many there are.
    assert compile_blocks(network, backend="eager") == FAMILIES[pipeline]
    before = report().graphs
    with compiled_passes():
        compiled = gradients_of(denoiser, x, condition)
        made = report().graphs - before
        gradients_of(denoiser, x, condition)
    assert not report().eager
    assert made and report().graphs - before == made, "nothing is compiled again in the second pass"
    assert list(network.state_dict()) == names
    assert len(compiled) == len(expected)
    for one, other in zip(compiled, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_equal_blocks_share_one_compilation_and_others_run_eagerly_outside() -> None:
    torch.manual_seed(0)
    network, x = Tower(), torch.randn(2, 5, 8, requires_grad=True)
    expected, before = network(x), report().graphs
    assert compile_blocks(network, backend="eager") == 3
    torch.testing.assert_close(network(x), expected, rtol=0, atol=0)
    assert report().graphs == before, "outside an update nothing is compiled"
    with compiled_passes():
        network(x)
        assert report().graphs == before + 1
        twin = Tower()
        compile_blocks(twin, backend="eager")
        twin(x)
        assert report().graphs == before + 1, "another network of the same blocks"
        with torch.no_grad():
            network(x.detach())
        assert report().graphs == before + 2
        network(x.mT.contiguous().mT)
        assert report().graphs == before + 2, "tokens in another order are put in order"


def test_copies_run_eagerly_and_share_what_they_shared() -> None:
    network = Tower()
    compile_blocks(network, backend="eager")
    for twin in (copy.deepcopy(network), copy.deepcopy(copy.deepcopy(network)), weight_sharing_copy(network)):
        before = report().graphs
        with torch.no_grad():
            twin.blocks[0].outer.bias.fill_(3.0)
        with compiled_passes():
            own = twin(torch.zeros(1, 2, 8))
        assert report().graphs == before
        assert not torch.allclose(own, torch.zeros(1)), "its own weights, not those of the network it was copied from"
    assert torch.equal(network.blocks[0].outer.bias, torch.full((8,), 3.0)), "the last copy shared its weights"
    uncompile_blocks(network)
    assert all("forward" not in vars(block) for block in network.blocks)


def test_a_block_that_cannot_be_compiled_runs_eagerly_and_is_reported() -> None:
    torch.manual_seed(0)
    network, x = Tower(Stubborn), torch.randn(2, 5, 8)
    expected = network(x)
    compile_blocks(network, backend=refused)
    with compiled_passes():
        torch.testing.assert_close(network(x), expected, rtol=0, atol=0)
    assert list(report().eager) == ["Stubborn"]
    (sentence,) = report().warnings()
    assert sentence.startswith("Blocks of class Stubborn run eagerly, because they cannot be compiled: ")


def refused(graph: Any, inputs: Any) -> Any:
    """A backend that takes nothing."""
    raise RuntimeError("no compiler")


def test_only_passes_with_a_graph_of_rewards_are_compiled() -> None:
    network, x = Tower(), torch.randn(2, 5, 8, requires_grad=True)
    compile_blocks(network, with_graph=True, backend="eager")
    before = report().graphs
    with compiled_passes():
        with torch.no_grad():
            network(x.detach())
        assert report().graphs == before
        network(x)
        assert report().graphs == before + 1


def test_a_compiled_graph_may_be_gone_back_through_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """As two rewards do through one decode; torch decides at the first backward pass whether that will be possible."""
    monkeypatch.setattr("torch._functorch.config.donated_buffer", True)
    network, x = Tower(), torch.randn(2, 5, 8, requires_grad=True)
    expected = torch.autograd.grad(network(x).sum(), x)
    compile_blocks(network, with_graph=True, backend="aot_eager")
    with compiled_passes():
        torch.autograd.grad(network(x).sum(), x)
        score = network(x).sum()
        for kept in (True, False):
            torch.testing.assert_close(torch.autograd.grad(score, x, retain_graph=kept), expected)
    assert not report().eager


def test_rows_of_own_networks_are_found_and_parts_of_blocks_are_not() -> None:
    network = nn.Module()
    network.stages = nn.ModuleList([Tower(), Tower(depth=1)])
    network.head = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    assert repeated_blocks(network) == list(network.stages[0].blocks)
    assert repeated_blocks(nn.Linear(2, 2)) == []


@pytest.mark.exhaustive
def test_inductor_gives_the_same_gradients_with_fewer_launches() -> None:
    torch.manual_seed(0)
    network, x = Tower(depth=2), torch.randn(2, 5, 8, requires_grad=True)

    def gradients() -> list[Tensor]:
        network.zero_grad(set_to_none=True)
        loss = network(x).square().mean()
        return [loss.detach(), *torch.autograd.grad(loss, [x, *network.parameters()])]

    with counted_launches() as eager:
        expected = gradients()
    assert eager.compiled == 0 and eager.eager > 20
    compile_blocks(network, backend=counting_inductor)
    with compiled_passes():
        gradients()
        with counted_launches() as compiled:
            found = gradients()
    assert not report().eager
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert compiled.compiled > 0
    assert compiled.total < eager.total


def test_launches_in_code_are_kernels_and_library_calls() -> None:
    code = (
        "def call(args):\n    cpp_fused_add_0(a, b)\n    extern_kernels.mm(a, b, out=c)\n"
        "    buf1 = torch.ops.aten._fused.default(a)\n    triton_poi_fused_0.run(a, b)\n"
        "    assert_size_stride(a, (1,), (1,))\n    buf2 = reinterpret_tensor(a, (1,), (1,), 0)\n"
    )
    assert launches_in(code) == 4


def test_compilations_are_kept_in_the_cache_unless_another_place_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path))
    keep_compilations()
    assert os.environ[CACHE] == str(tmp_path / "compiled")
    monkeypatch.delenv(CACHE)
    keep_compilations()
    assert os.environ[CACHE] == str((tmp_path / "compiled").resolve())
    assert (tmp_path / "compiled").stat().st_mode & 0o077 == 0
    monkeypatch.delenv(CACHE)
    (tmp_path / "compiled").chmod(0o777)  # anybody could put files there, and torch would unpickle them
    keep_compilations()
    assert CACHE not in os.environ


def test_graphs_mark_where_an_update_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    marks: list[int] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(1))
    with compiled_passes():
        pass
    assert not marks
    compile_blocks(Tower(), "graphs")
    with compiled_passes():
        pass
    assert marks == [1]
