"""Waits are found by kind, on a device that stands in for a GPU, and CUDA's own check is passed where there is one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.distributed.shared_draws import whole_number
from dipp_toolkit.utils.device import read_scalars, sent
from dipp_toolkit.utils.host_waits import HostWaits, waits_are_errors
from dipp_toolkit.utils.stand_in_device import StandInTensor, stand_in_device

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("kind", "work"),
    [
        ("read", lambda x: float(x[0, 0])),
        ("read", lambda x: bool((x > 0).all())),
        ("read", lambda x: torch.equal(x, x)),
        ("read", lambda x: torch.linalg.solve(x, x)),
        ("size", lambda x: x[x > 0]),
        ("size", lambda x: (x > 0).nonzero()),
        ("to host", lambda x: x.cpu()),
        ("to host", lambda x: x.tolist()),
        ("to host", lambda x: x.detach().cpu().numpy()),
        ("to device", lambda x: torch.ones(3).to(x)),
        ("to device", lambda x: torch.tensor([1.0], device=x.device)),
        ("to device", lambda x: x[[0, 1]]),
        ("to device", lambda x: x.copy_(torch.ones(3, 3))),
        (None, lambda x: x.copy_(torch.ones(3, 3), non_blocking=True)),
        (None, lambda x: torch.where(x > 0, x, 0.0).masked_fill_(x < 0, 1.0)),
        (None, lambda x: torch.full((2,), 1.5, device=x.device) + torch.arange(2, device=x.device)),
        (None, lambda x: x[torch.zeros(1, dtype=torch.int64, device=x.device)]),
        (None, lambda x: float(torch.ones(())) + torch.ones(2)),
        (None, lambda x: sent(torch.ones(2), x.device)),
        (None, lambda x: whole_number(3, torch.Generator(x.device))),
        (None, lambda x: Condition(("a", "b"), {"hidden": x[:2], "mask": x[:2]})[[1, 0, 1]]),
    ],
)
def test_a_wait_has_its_kind(kind: str | None, work: Callable[[Tensor], object]) -> None:
    with stand_in_device() as device:
        x = torch.eye(3).to(device)
        with HostWaits() as waits:
            work(x)
    assert waits.by_kind == ({} if kind is None else {kind: 1}), waits.table()
    assert all(Path(__file__).name in wait.where for wait in waits.counts if "device.py" not in wait.where)


def test_numbers_of_the_stand_in_are_those_of_the_cpu() -> None:
    def trained(device: torch.device) -> Tensor:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 1)).to(device)
        other = copy.deepcopy(network)
        optimizer = torch.optim.Adam(network.parameters(), fused=False, foreach=False)
        random = torch.Generator(device).manual_seed(1)
        for _ in range(3):
            loss = network(torch.randn(5, 4, generator=random, device=device)).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        pairs = zip(network.parameters(), other.parameters(), strict=True)
        assert not any(torch.equal(a.cpu(), b.cpu()) for a, b in pairs)
        return torch.cat([weight.detach().flatten() for weight in network.parameters()])

    plain = trained(CPU)
    with stand_in_device() as device:
        there = trained(device)
        assert isinstance(there, StandInTensor) and there.device == device
        assert torch.equal(there.cpu(), plain)


def test_a_run_on_the_cpu_counts_what_a_gpu_would_be_asked_for() -> None:
    x = torch.ones(3)
    with HostWaits(host_too=True) as waits:
        x.tolist(), float(x.sum()), x[x > 0]
        read_scalars({"a": x[0], "b": x[1], "c": 3.0})
    assert waits.by_kind == {"read": 3, "size": 1}
    assert waits.table().startswith("1 x read") and waits.total == 4
    waits.clear()
    assert waits.total == 0


def test_on_the_cpu_nothing_is_an_error() -> None:
    with waits_are_errors(CPU):
        assert float(torch.ones(2).sum()) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_raises_at_waits_and_lets_those_pass_that_are_meant() -> None:
    device = torch.device("cuda")
    x = torch.ones(2, device=device)
    with waits_are_errors(device):
        with pytest.raises(RuntimeError, match="synchron"):
            float(x.sum())
        assert read_scalars({"sum": x.sum()}) == {"sum": 2.0}
        assert sent(torch.ones(2), device).device.type == "cuda"
    assert float(x.sum()) == 2
