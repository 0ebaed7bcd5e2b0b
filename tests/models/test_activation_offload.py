"""What graphs keep waits on the host: the same gradients, weights left where they are, and no wait for a copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dipp_toolkit.config import make_config
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models import activation_offload
from dipp_toolkit.models.activation_offload import ActivationOffload
from dipp_toolkit.models.compilation import compile_blocks, compiled_passes, forget_compilations
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.planning.estimate import make_plan
from dipp_toolkit.planning.machines import HOST_LINKS
from dipp_toolkit.training.setup.assembly import assemble
from dipp_toolkit.training.setup.resolve import resolve
from dipp_toolkit.utils.host_waits import HostWaits
from dipp_toolkit.utils.stand_in_device import stand_in_device
from tiny import PROMPTS, tiny_pipeline


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """Tensors that were moved; small ones are, too."""
    tensors: list[Tensor] = []
    decide = activation_offload.is_moved

    def noted(tensor: Tensor) -> bool:
        if decide(tensor):
            tensors.append(tensor)
        return decide(tensor)

    monkeypatch.setattr(activation_offload, "SMALLEST", 0)
    monkeypatch.setattr(activation_offload, "is_moved", noted)
    yield tensors


class Block(nn.Module):
    """Convolutions in channels-last order, attention of transposed views, and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(8, 8, 3, padding=1).to(memory_format=torch.channels_last)
        self.project, self.frozen = nn.Linear(8, 24), nn.Linear(8, 8).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.convolution(x).flatten(2).transpose(1, 2)
        q, k, v = self.project(rows).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.frozen(mixed.tanh()).transpose(1, 2).unflatten(2, x.shape[2:])


class Tower(nn.Module):
    """Two blocks, recomputed or not."""

    def __init__(self, recomputed: bool = False) -> None:
        super().__init__()
        self.blocks, self.recomputed = nn.Sequential(Block(), Block()), recomputed

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.recomputed else block(x)
        return x


def gradients(network: nn.Module, x: Tensor, offload: ActivationOffload, dtype: torch.dtype | None) -> list[Tensor]:
    network.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype, enabled=dtype is not None), offload():
        output = network(x)
    output.float().square().mean().backward()
    return [output.detach(), *(weight.grad for weight in network.parameters() if weight.grad is not None)]


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_gradients_have_the_same_bits_and_weights_stay(
    moved: list[Tensor], dtype: torch.dtype | None, recomputed: bool
) -> None:
    torch.manual_seed(0)
    network = Tower(recomputed)
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    plain = gradients(network, x, ActivationOffload(), dtype)
    assert not moved
    again = gradients(network, x, ActivationOffload(active=True), dtype)
    assert all(map(torch.equal, plain, again))
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    assert moved
    assert not any(tensor.untyped_storage().data_ptr() in weights for tensor in moved)


def test_the_order_in_memory_stays() -> None:
    x = torch.randn(64, 8, 32, 32).contiguous(memory_format=torch.channels_last)
    device, copy = activation_offload._to_host(x)
    assert copy.data_ptr() != x.data_ptr()
    assert copy.stride() == x.stride()
    assert torch.equal(activation_offload._to_device((device, copy)), x)


def test_small_tensors_stay() -> None:
    small, large = torch.zeros(16), torch.zeros(activation_offload.SMALLEST // 4)
    assert not activation_offload.is_moved(small)
    assert activation_offload.is_moved(large)


def test_compiled_blocks_move_what_they_keep(moved: list[Tensor]) -> None:
    torch.manual_seed(0)
    network, x = Tower(), torch.randn(2, 8, 4, 4)
    forget_compilations()
    compile_blocks(network, backend="aot_eager")
    with compiled_passes():
        plain = gradients(network, x, ActivationOffload(), None)
        assert not moved
        again = gradients(network, x, ActivationOffload(active=True), None)
    forget_compilations()
    assert all(map(torch.equal, plain, again))
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    assert moved
    assert not any(tensor.untyped_storage().data_ptr() in weights for tensor in moved)


@pytest.mark.parametrize(("kind", "active"), [("cpu", False), ("mps", False), ("cuda", True)])
def test_a_device_with_the_host_s_memory_moves_nothing(kind: str, active: bool) -> None:
    assert ActivationOffload.chosen(True, torch.device(kind)).active is active
    assert not ActivationOffload.chosen(False, torch.device(kind)).active


def test_cuda_graphs_are_refused_with_it() -> None:
    with pytest.raises(RequestError, match="set compile=on, or leave activation_offload out"):
        make_config({"activation_offload": True, "compile": "graphs"})
    assert make_config({"activation_offload": True, "compile": "on"}).activation_offload


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "more",
    [
        {"mode": "lora", "lora_rank": 2},
        {},
        {"recompute_generator": True},
    ],
)
def test_a_training_on_a_device_has_the_same_weights_and_waits_as_often(
    more: dict[str, Any], moved: list[Tensor], tmp_path: Path
) -> None:
    pipeline = str(tiny_pipeline(tmp_path / "tiny"))
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    (tmp_path / "blue.py").write_text("def blue(images, prompts):\n    return images[:, 2].mean((1, 2))\n")
    settings = {
        "generator": pipeline, "reference": pipeline, "prompts": str(tmp_path / "prompts.txt"), "batch_size": 2,
        "rewards": {f"{tmp_path}/blue.py:blue": 1.0}, "eval_count": 2, "reference_steps": 1, "precision": "fp32",
        "reward_scale": 1.0, "guidance": 2.0, **more,
    }  # fmt: skip

    def weights_of(offload: bool) -> tuple[list[Tensor], int]:
        with stand_in_device() as device:
            config = resolve(make_config({**settings, "device": str(device), "activation_offload": offload}))
            parts = assemble(config)
            rows = [parts.conditions[:2]] * 2
            parts.engine.step(rows)
            with HostWaits() as waits:
                parts.engine.step(rows, 1)
            trained = [*parts.generator.network.parameters(), *parts.assistant.denoiser.network.parameters()]
            return [weight.detach().cpu() for weight in trained], waits.total

    plain, waited = weights_of(False)
    assert not moved
    offloaded, waited_too = weights_of(True)
    assert moved
    assert all(map(torch.equal, plain, offloaded))
    assert waited_too == waited


@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_a_plan_takes_the_graph_off_the_device_and_adds_the_way(
    checkpointing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activation_offload, "SMALLEST", 2**10)
    twin = str(write_twin("PixArtAlphaPipeline", tmp_path / "twin"))
    settings = {
        "reference": twin, "batch_size": 4, "precision": "bf16", "rewards": {}, "gradient_checkpointing": checkpointing,
    }  # fmt: skip
    plain, offloaded = (make_plan(make_config({**settings, "activation_offload": on})) for on in (False, True))
    assert plain.offloaded == 0 < offloaded.offloaded
    for piece in ("assistant update", "generator forward", "generator backward"):
        assert offloaded.transient[piece] < plain.transient[piece]
    assert offloaded.flops == plain.flops
    assert offloaded.resident == plain.resident
    longer = {gpu: seconds - plain.seconds[gpu] for gpu, seconds in offloaded.seconds.items()}
    for gpu, link in HOST_LINKS.items():  # of the generator's pass and the assistant's, both ways
        assert longer[gpu] >= 2 * 2 * offloaded.offloaded / link
    on_a_cpu = make_plan(make_config({**settings, "activation_offload": True, "device": "cpu"}))
    assert on_a_cpu.offloaded == 0
