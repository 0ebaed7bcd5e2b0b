"""Adam with beta1 = 0 and no first moment: torch's weights to the bit, half the state, old checkpoints go on."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from dipp_toolkit.config import TrainConfig
from dipp_toolkit.errors import Interrupted
from dipp_toolkit.training.momentum_free_adam import MomentumFreeAdam
from dipp_toolkit.training.optim import load_optimizer, make_optimizer
from dipp_toolkit.training.run import train
from dipp_toolkit.training.run_state.checkpoint import TENSORS, load_checkpoint, save_checkpoint
from tiny_runs import BLUE, StopAt, assert_same_bits, blue_settings

Make = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
RATE = 1e-2


def momentum_kept(parameters: Iterable[nn.Parameter], rate: float, kind: str = "adam") -> torch.optim.Optimizer:
    """What `make_optimizer` made before: Adam with a first moment."""
    return torch.optim.Adam(list(parameters), lr=rate, betas=(0.0, 0.999), fused=True)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(33, 65), nn.GELU(), nn.Linear(65, 7))


def train_on(network: nn.Module, optimizer: torch.optim.Optimizer, steps: Iterable[int]) -> None:
    for step in steps:
        optimizer.zero_grad()
        inputs = torch.randn(8, 33, generator=torch.Generator().manual_seed(step))
        network(inputs).square().mean().backward()
        before = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
        for group in optimizer.param_groups:
            group["lr"] = RATE / (1 + step)  # as a schedule moves it
        optimizer.step()
        assert all(torch.equal(old, own.grad) for old, own in zip(before, network.parameters(), strict=True))


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    "kernel",
    [{"fused": True}, {"fused": False}, {"fused": None}],
    ids=["fused", "plain", "chosen-by-torch"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_fifty_steps_give_the_weights_of_adam_to_the_bit(kernel: dict[str, Any], dtype: torch.dtype) -> None:
    ours, theirs = small(), small()
    if dtype == torch.float64:
        torch.set_default_dtype(dtype)
        ours, theirs = ours.double(), theirs.double()
    try:
        train_on(ours, MomentumFreeAdam(ours.parameters(), RATE, **kernel), range(50))
        train_on(theirs, torch.optim.Adam(theirs.parameters(), RATE, betas=(0.0, 0.999), **kernel), range(50))
    finally:
        torch.set_default_dtype(torch.float32)
    assert same_weights(ours, theirs)
    assert not same_weights(ours, small())


def test_the_foreach_kernel_gives_the_weights_of_adam_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU torch chooses it where nothing is asked for; on a CPU it has to be asked."""
    from torch.optim import adam as functional

    monkeypatch.setattr(functional, "_default_to_fused_or_foreach", lambda *_, **__: (False, True))
    ours, theirs = small(), small()
    train_on(ours, MomentumFreeAdam(ours.parameters(), RATE), range(20))
    train_on(theirs, torch.optim.Adam(theirs.parameters(), RATE, betas=(0.0, 0.999), foreach=True), range(20))
    assert same_weights(ours, theirs)


def test_parameters_without_a_gradient_stay_and_have_no_state() -> None:
    network = small()
    frozen = network[0].bias
    optimizer = MomentumFreeAdam(network.parameters(), RATE)
    network(torch.ones(2, 33)).sum().backward()
    frozen.grad, before = None, frozen.detach().clone()
    assert optimizer.step(lambda: 3.0) == 3.0
    assert torch.equal(frozen, before)
    assert frozen not in optimizer.state


def bytes_of(state: dict[str, Any]) -> int:
    return sum(value.nbytes for own in state["state"].values() for value in own.values())


def test_state_and_checkpoint_are_half_of_adams(tmp_path: Path) -> None:
    sizes = []
    for make in (make_optimizer, momentum_kept):
        network = small()
        optimizer = make(network.parameters(), RATE, "adam")
        train_on(network, optimizer, range(2))
        state = optimizer.state_dict()
        folder = tmp_path / make.__name__
        save_checkpoint(folder, {"optimizer": state})
        sizes.append((bytes_of(state), (folder / TENSORS).stat().st_size))
    weights = sum(parameter.nbytes for parameter in small().parameters())
    assert sizes[0][0] == weights + 4 * 4  # and a count for each of four tensors
    assert sizes[1][0] == 2 * weights + 4 * 4
    assert sizes[0][1] < 0.55 * sizes[1][1]


def test_an_optimiser_goes_on_from_adams_state_to_the_bit(tmp_path: Path) -> None:
    straight = small()
    train_on(straight, momentum_kept(straight.parameters(), RATE), range(6))
    first = small()
    old = momentum_kept(first.parameters(), RATE)
    train_on(first, old, range(3))
    save_checkpoint(tmp_path / "step-3", {"optimizer": old.state_dict()})
    new = make_optimizer(first.parameters(), RATE, "adam")
    load_optimizer(new, load_checkpoint(tmp_path / "step-3")["optimizer"])
    train_on(first, new, range(3, 6))
    assert same_weights(first, straight)
    assert {name for state in new.state.values() for name in state} == {"step", "exp_avg_sq"}
    assert set(new.param_groups[0]) == {"params", "lr", "betas", "eps", "fused"}


def first_moments(folder: Path) -> list[str]:
    """Names of those in a run's newest checkpoint."""
    with safe_open(max((folder / "checkpoints").iterdir()) / TENSORS, "pt") as file:
        return [name for name in file.keys() if name.endswith("/exp_avg")]  # noqa: SIM118 -- not a dictionary


def test_a_run_begun_with_a_first_moment_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = blue_settings(tmp_path, BLUE)
    whole = train(TrainConfig(**settings, out=tmp_path / "whole")).folder
    with monkeypatch.context() as patch:
        patch.setattr("dipp_toolkit.training.setup.assembly.make_optimizer", momentum_kept)
        with pytest.raises(Interrupted):
            train(TrainConfig(**settings, out=tmp_path / "parts"), listeners=(StopAt(3, signal.SIGINT),))
    assert first_moments(tmp_path / "parts")
    parts = train(TrainConfig(**settings, out=tmp_path / "parts", resume=True)).folder
    assert_same_bits(whole, parts, 6)
    assert not first_moments(parts)
