"""Blocks that stand for those that equal them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dipp_toolkit.models.blueprints import parameter_count
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.planning import costs
from dipp_toolkit.planning.dry_run import Meter, dry, faked
from dipp_toolkit.planning.rehearsals import Rehearsals
from dipp_toolkit.planning.repeated import Repeated, abridged, adapted, adapters_of, kinds_of


class Block(nn.Module):
    """Three layers."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(3)])
        self.calls = 0

    def forward(self, x: Tensor, seen: list[int] | None = None) -> Tensor:
        self.calls += 1
        if seen is not None:
            seen.append(len(seen))
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return x


class Chain(nn.Module):
    """Blocks one after the other, those of two widths."""

    def __init__(self, count: int, width: int = 8) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(width) for _ in range(count)])
        self.wide = nn.ModuleList([Block(2 * width) for _ in range(2)])
        self.last = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, seen: list[int] | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, seen) if seen is not None else block(x)
        x = self.last(x)
        for block in self.wide:
            x = block(x)
        return x


class Turned(nn.Module):
    """Keeps angles as plain attributes, one of them in a list, as some networks of diffusers do."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(8)
        self.angles = [torch.arange(8.0), torch.arange(8.0)]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.to(x.device) + self.angles[1].to(x.device)


def test_tensors_that_are_plain_attributes_are_dry_as_well() -> None:
    with torch.device("meta"):
        network = Turned()
    with dry():
        faked(network)
        assert network(torch.zeros(2, 8)).shape == (2, 8)
        assert network.scale.device == network.angles[0].device == torch.device("cpu")


def test_equal_blocks_are_found_and_one_is_left_of_each_kind() -> None:
    network = Chain(5)
    assert kinds_of(network) == (tuple(f"blocks.{number}" for number in range(5)), ("wide.0", "wide.1"))
    short = abridged(network, kinds_of(network))
    assert [type(block) for block in short.blocks] == [Block, *[Repeated] * 4]  # type: ignore[union-attr]
    assert parameter_count(short) == parameter_count(Chain(1)) - parameter_count(Block(16))
    assert all(isinstance(block, Block) for block in network.blocks), "what is copied from stays whole"
    assert kinds_of(nn.ModuleList([nn.Linear(4, 4) for _ in range(9)])) == (), "a layer is no block"
    assert kinds_of(Chain(1, width=4)) == (("wide.0", "wide.1"),)


def test_blocks_inside_of_those_that_are_left_out_are_not_looked_for() -> None:
    nested = nn.ModuleList([nn.ModuleDict({"chain": Chain(3)}) for _ in range(2)])
    names = {name for kind in kinds_of(nested) for name in kind}
    assert {"0", "1", "0.chain.blocks.2"} <= names
    assert not any(name.startswith("1.") for name in names)


def test_a_repeated_block_computes_and_answers_as_the_first() -> None:
    network = Chain(3)
    short = abridged(network, kinds_of(network))
    x = torch.randn(2, 8)
    first, second = short.blocks[0], short.blocks[1]  # type: ignore[index]
    torch.testing.assert_close(second(x), first(x))
    assert second.calls == first.calls
    with pytest.raises(AttributeError):
        _ = second.missing


def test_blocks_that_are_left_out_have_adapters_all_the_same() -> None:
    network = Chain(4)
    whole = adapted(network, 2)
    short = adapted(abridged(Chain(4), kinds_of(network)), 2)
    trained = [sum(p.numel() for p in part.parameters() if p.requires_grad) for part in (whole, short)]
    assert trained[0] == trained[1]
    sizes = [sum(w.numel() for a in adapters_of(part) for w in a.weights()) for part in (whole, short)]
    assert sizes[0] == sizes[1] == trained[0]


def spent(network: nn.Module, x: tuple[int, int], **given: Any) -> tuple[int, ...]:
    """What a pass with its way back needs."""
    with dry():
        faked(network)
        rehearsals = Rehearsals(network)
        with Meter() as meter:
            out = network(torch.zeros(x, requires_grad=True), **given)
            kept = meter.now
            out.sum().backward()
        assert rehearsals is not None
    return meter.peak, kept, meter.flops, meter.launches


def test_a_block_runs_once_and_costs_as_often_as_it_stands_there() -> None:
    with torch.device("meta"):
        network = Chain(7).requires_grad_(False)
    short = abridged(network, kinds_of(network))
    assert spent(short, (4, 8)) == spent(network, (4, 8))
    assert short.blocks[0].calls == 1  # type: ignore[index]


def test_a_block_that_changes_what_it_is_given_is_run_where_it_stands() -> None:
    with torch.device("meta"):
        short = abridged(Chain(3), kinds_of(Chain(3)))
    seen: list[int] = []
    spent(short, (4, 8), seen=seen)
    assert seen == [0, 1, 2]


CASES = [
    ("lora", False, False, "none"),
    ("full", True, False, "none"),
    pytest.param("lora", True, True, "none", marks=pytest.mark.exhaustive),
    pytest.param("lora", True, False, "both", marks=pytest.mark.exhaustive),
    pytest.param("full", False, False, "reference", marks=pytest.mark.exhaustive),
]
DEPTHS = {
    "PixArtAlphaPipeline": {"num_layers": 6}, "HunyuanDiTPipeline": {"num_layers": 8},
    "FluxPipeline": {"num_layers": 3, "num_single_layers": 4}, "Lumina2Pipeline": {"num_layers": 4},
    "StableDiffusionPipeline": {"layers_per_block": 3},
}  # fmt: skip
"""Twins with so many blocks."""


@pytest.mark.parametrize("kind", DEPTHS)
@pytest.mark.parametrize(("mode", "checkpointing", "offload", "slopes"), CASES)
def test_a_plan_of_one_block_costs_what_the_whole_network_does(
    kind: str,
    mode: str,
    checkpointing: bool,
    offload: bool,
    slopes: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    twin = write_twin(kind, tmp_path / "twin")
    file = next(path for path in (twin / name / "config.json" for name in ("transformer", "unet")) if path.is_file())
    file.write_text(json.dumps(json.loads(file.read_text()) | DEPTHS[kind]))
    shape = costs.Shape(
        str(twin), mode, 2, 3, torch.float32, torch.bfloat16, checkpointing, offload=offload, slopes=slopes
    )
    kinds = costs.whole_network(shape.name, "reference").kinds
    assert max(map(len, kinds)) >= 3
    sizes, short = costs.network_sizes(shape), costs._passes(shape, 2.0)
    monkeypatch.setattr(costs, "kinds_of", lambda network: ())
    for known in (costs.whole_network, costs._network_sizes, costs._networks, costs._DIVERGENCES):
        known.clear() if isinstance(known, dict) else known.cache_clear()
    try:
        assert costs.network_sizes(shape) == sizes
        whole = costs._passes(shape, 2.0)
    finally:  # what was counted without blocks is not for other tests
        for known in (costs.whole_network, costs._network_sizes, costs._networks, costs._DIVERGENCES):
            known.clear() if isinstance(known, dict) else known.cache_clear()
    for piece in ("divergence", "held", "backward"):
        little, much = getattr(short, piece), getattr(whole, piece)
        assert (little.flops, little.kept, little.moved) == (much.flops, much.kept, much.moved), piece
        assert little.launches == pytest.approx(much.launches, rel=0.01), piece
        assert little.peak == pytest.approx(much.peak, rel=0.04), piece
