"""Devices that a machine has not: those that it has are listed."""

from __future__ import annotations

import pytest
import torch

from dipp_toolkit.errors import RequestError
from dipp_toolkit.utils.device import choose_device, devices_here, no_device


@pytest.fixture
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def with_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU number {index}")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("on_a_cpu")
@pytest.mark.parametrize("name", ["gpu", "CPU", "", "xpu", "hpu", "cuda:x", "meta", "mps:1"])
def test_what_no_machine_or_not_this_one_has(name: str) -> None:
    with pytest.raises(RequestError) as raised:
        choose_device(name)
    assert str(raised.value).startswith(f"The device '{name}' cannot be used here; this machine has: cpu.")
    assert "Facebook" not in str(raised.value)


@pytest.mark.usefixtures("on_a_cpu")
def test_cuda_without_a_gpu_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert no_device("cuda:7", "Torch's own").startswith(
        "The device 'cuda:7' cannot be used here; this machine has: cpu. "
    )
    monkeypatch.setattr(torch.version, "cuda", None)
    assert no_device("cuda", "Torch's own").endswith("has: cpu. The installed torch is built without CUDA.")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert no_device("cuda", "Torch's own").endswith("has: cpu. torch sees no NVIDIA GPU with a driver.")


@pytest.mark.usefixtures("with_two_gpus")
def test_gpus_are_listed_by_number_and_name() -> None:
    assert devices_here() == {"cpu": "", "cuda:0": "GPU number 0", "cuda:1": "GPU number 1"}
    listing = "this machine has: cpu, cuda:0 (GPU number 0), cuda:1 (GPU number 1)."
    assert no_device("cuda:7", "invalid device ordinal").endswith(listing)
    assert no_device("gpu", "").endswith(listing)
    # One that is there and cannot be used: torch knows why.
    assert no_device("cuda:1", "out of memory").endswith(f"{listing} out of memory.")
    assert no_device("cuda", "out of memory.").endswith(f"{listing} out of memory.")
