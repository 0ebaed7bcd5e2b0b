"""`precision: auto`: bfloat16 where the machine computes it, float32 where it would emulate it, and remembered."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dipp_toolkit import TrainConfig
from dipp_toolkit.config import make_config
from dipp_toolkit.distributed import Processes
from dipp_toolkit.errors import CheckpointError
from dipp_toolkit.events import RunStartEvent
from dipp_toolkit.planning.estimate import with_precision
from dipp_toolkit.training.run import RunResult, train
from dipp_toolkit.training.setup.resolve import resolve, settle_precision
from dipp_toolkit.utils import precision as native
from dipp_toolkit.utils.assignments import read_yaml
from dipp_toolkit.utils.precision import PrecisionChoice, choose_precision
from tiny import PROMPTS, tiny_pipeline

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool | None, float], None]:
    """Stands in for a CPU: what it says of bfloat16, and how many times as long a layer takes in it."""

    def pretend(says: bool | None, times: float) -> None:
        monkeypatch.setattr(native, "has_bf16_instructions", lambda: says)
        monkeypatch.setattr(native, "slowdown", lambda dtype: times)

    return pretend


@pytest.mark.parametrize(
    ("says", "line"),
    [
        (True, "precision bf16: this CPU computes it"),
        (None, "precision fp32: PyTorch does not say whether this CPU computes bf16"),
        (False, "precision fp32: this CPU has no instructions for bf16"),
    ],
)
def test_a_cpu_gets_what_it_says_and_no_clock_is_read(
    monkeypatch: pytest.MonkeyPatch, says: bool | None, line: str
) -> None:
    def slowdown(dtype: torch.dtype) -> float:
        raise AssertionError("a machine that is busy would choose otherwise")

    _without_limits(monkeypatch)
    monkeypatch.setattr(native, "has_bf16_instructions", lambda: says)
    monkeypatch.setattr(native, "slowdown", slowdown)
    assert str(choose_precision("auto", CPU)) == line
    if says:
        assert choose_precision("bf16", CPU) == PrecisionChoice("bf16", "as asked")


def _without_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("machine_type", "library", "kernels", "avx512_bf16", "amx", "limit", "answer"),
    [
        ("x86_64", True, "AVX512", True, True, {}, True),  # Sapphire Rapids
        ("AMD64", True, "AVX512", True, False, {}, True),  # Zen 4, on Windows
        ("x86_64", True, "AVX512", False, False, {}, False),  # Skylake: the library emulates and calls it support
        ("x86_64", False, "AVX2", False, False, {}, False),
        ("x86_64", True, "AVX2", True, True, {"ATEN_CPU_CAPABILITY": "avx2"}, False),
        ("x86_64", False, "AVX512", True, True, {"ONEDNN_MAX_CPU_ISA": "AVX2"}, False),
        ("x86_64", True, "AVX512", True, True, {"ONEDNN_MAX_CPU_ISA": "avx512_core"}, False),
        ("x86_64", True, "AVX512", True, True, {"DNNL_MAX_CPU_ISA": "AVX512_CORE_VNNI"}, False),
        ("x86_64", True, "AVX512", True, True, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, True),
        ("aarch64", True, "DEFAULT", False, False, {}, True),  # Graviton 3
        ("aarch64", False, "DEFAULT", False, False, {}, False),
        ("arm64", None, "DEFAULT", False, False, {}, None),  # PyTorch without oneDNN
    ],
)
def test_bf16_is_what_processor_and_libraries_say(
    monkeypatch: pytest.MonkeyPatch,
    machine_type: str,
    library: bool | None,
    kernels: str,
    avx512_bf16: bool,
    amx: bool,
    limit: dict[str, str],
    answer: bool | None,
) -> None:
    _without_limits(monkeypatch)
    for name, value in limit.items():
        monkeypatch.setenv(name, value)
    says = SimpleNamespace() if library is None else SimpleNamespace(_is_mkldnn_bf16_supported=lambda: library)
    monkeypatch.setattr(torch.ops, "mkldnn", says)
    monkeypatch.setattr(platform, "machine", lambda: machine_type)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: kernels)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert native.has_bf16_instructions() is answer
    choice = choose_precision("auto", CPU)
    assert choice.name == ("bf16" if answer else "fp32")
    assert all(f"{name}={value}" in choice.reason for name, value in limit.items()) or choice.name == "bf16"


def test_a_precision_that_is_named_stays_with_a_word_where_it_is_slow(
    machine: Callable[[bool | None, float], None],
) -> None:
    machine(False, 11.0)
    asked = choose_precision("bf16", CPU)
    assert asked == PrecisionChoice(
        "bf16", "as asked, though this CPU is slow at it (a layer takes 11 times as long as in fp32)", 11.0
    )
    assert choose_precision("fp32", CPU) == PrecisionChoice("fp32", "as asked")
    machine(True, 0.3)
    assert choose_precision("bf16", CPU) == PrecisionChoice("bf16", "as asked")


@pytest.mark.parametrize(("computes", "name"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_is_asked_without_emulation(monkeypatch: pytest.MonkeyPatch, computes: bool, name: str) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: asked.append(including_emulation) or computes
    )
    choice = choose_precision("auto", torch.device("cuda", 1))
    assert (choice.name, asked) == (name, [False])
    assert choice.reason.startswith("A GPU")


def test_other_accelerators_are_asked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: False)
    assert choose_precision("auto", torch.device("mps")).name == "fp32"
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: True)
    assert choose_precision("auto", torch.device("mps")).name == "bf16"
    monkeypatch.setattr(torch.xpu, "is_bf16_supported", lambda: True, raising=False)
    assert choose_precision("auto", torch.device("xpu")).name == "bf16"
    monkeypatch.delattr(torch.xpu, "is_bf16_supported")
    assert choose_precision("auto", torch.device("xpu")).name == "fp32"


def test_a_layer_is_measured_by_the_clock_it_is_given_and_draws_nothing() -> None:
    ticks = iter((2.0, 5.5))
    before = torch.get_rng_state()
    assert native.layer_time(torch.bfloat16, lambda: next(ticks)) == 3.5
    assert torch.equal(before, torch.get_rng_state())


def test_the_fastest_of_several_counts_and_a_clear_answer_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(times: dict[torch.dtype | None, list[float]]) -> tuple[float, int]:
        calls = []

        def fake(dtype: torch.dtype | None) -> float:
            calls.append(dtype)
            return times[dtype].pop(0) if len(times[dtype]) > 1 else times[dtype][0]

        monkeypatch.setattr(native, "layer_time", fake)
        return native.slowdown.__wrapped__(torch.bfloat16), len(calls)

    assert answer({None: [9, 4, 2, 3], torch.bfloat16: [9, 1, 3, 2]}) == (0.5, 2 + 2 * native.REPEATS)
    assert answer({None: [1.0], torch.bfloat16: [11.0]}) == (11.0, 4)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the switches are those of x86 processors")
@pytest.mark.parametrize("limits", [{"ATEN_CPU_CAPABILITY": "avx2"}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}])
def test_kernels_held_back_to_avx2_run_in_fp32(limits: dict[str, str]) -> None:
    program = (
        "import torch; from dipp_toolkit.utils.precision import *; "
        "print(choose_precision('auto', torch.device('cpu')).name, has_bf16_instructions())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **limits}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["fp32", "False"]


def test_the_first_process_decides_for_all(
    monkeypatch: pytest.MonkeyPatch, machine: Callable[[bool | None, float], None]
) -> None:
    machine(True, 0.3)
    other = {"name": "fp32", "reason": "this CPU emulates bf16", "slowdown": 1.0}
    monkeypatch.setattr(Processes, "tell", lambda self, words: [other, words])
    config, choice = settle_precision(TrainConfig(), CPU, Processes(1, 2))
    assert (config.precision, choice.reason) == ("fp32", "this CPU emulates bf16")


def test_auto_is_the_default_and_what_is_recommended(machine: Callable[[bool | None, float], None]) -> None:
    assert TrainConfig().precision == "auto"
    for name in ("emoji-onestep", "pixart-onestep", "sd15-onestep"):
        config = resolve(TrainConfig(generator=name, prompts="emoji-train"))
        assert config.precision == "auto"
        assert with_precision(config).precision == "bf16"  # of the GPUs that are planned for
    machine(False, 11.0)
    assert with_precision(TrainConfig(device="cpu")).precision == "fp32"
    assert with_precision(TrainConfig(device="cpu", precision="bf16")).precision == "bf16"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a run of two steps on a tiny pipeline."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    return {
        "reference": str(tiny_pipeline(folder / "reference")), "prompts": str(folder / "prompts.txt"), "device": "cpu",
        "batch_size": 2, "eval_count": 2, "reference_steps": 1, "steps": 1,
    }  # fmt: skip


class Starts:
    """Keeps what a run said at its start."""

    def __init__(self) -> None:
        self.events: list[RunStartEvent] = []

    def dipp_on_run_start(self, event: RunStartEvent) -> None:
        self.events.append(event)


def test_a_run_remembers_what_was_chosen_and_goes_on_with_it_on_another_machine(
    world: dict[str, Any],
    tmp_path: Path,
    machine: Callable[[bool | None, float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _without_limits(monkeypatch)
    starts = Starts()

    def run(**settings: Any) -> RunResult:
        return train(TrainConfig(**world | settings, out=tmp_path / "run"), listeners=[starts])

    def saved() -> str:
        return make_config(read_yaml(tmp_path / "run/config.yaml")).precision

    machine(False, 11.0)
    result = run()
    assert saved() == "fp32"
    chosen = "fp32: this CPU has no instructions for bf16"
    assert str(starts.events[-1].precision) == f"precision {chosen}"
    assert starts.events[-1].config.precision == "fp32"
    assert json.loads((result.folder / "summary.json").read_text())["environment"]["precision"] == chosen
    assert "this CPU has no instructions for bf16" in (result.folder / "report.html").read_text()
    assert '"precision": "fp32"' in (result.folder / "final/README.md").read_text()

    machine(True, 0.3)
    with pytest.raises(CheckpointError, match="precision was fp32 and is bf16"):
        run(resume=True, steps=2, precision="bf16")
    result = run(resume=True, steps=2)
    assert str(starts.events[-1].precision) == "precision fp32: as the run was begun"
    assert saved() == "fp32" and result.summary["steps"] == 2
    # Another run from this one's generator is a matter of the machine again.
    assert resolve(TrainConfig(generator=str(tmp_path / "run"))).precision == "auto"
