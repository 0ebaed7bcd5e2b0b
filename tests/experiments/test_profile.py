"""`dipp profile`: its parts add up, what it reads of a trace, what it advises, and that it changes nothing."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from dipp_cli.actions.profile import describe
from dipp_cli.app import main
from dipp_pixart.family import write_pixart_twin
from dipp_toolkit.config import TrainConfig
from dipp_toolkit.distributed import Processes
from dipp_toolkit.experiments.profile.advice import advice
from dipp_toolkit.experiments.profile.parts import GPU_MARK, PartMeter, PartTimer
from dipp_toolkit.experiments.profile.peak_rate import PeakRate
from dipp_toolkit.experiments.profile.run import WARM_UP, Part, Profile, Profiling, profile, profiled_loop
from dipp_toolkit.experiments.profile.trace import gpu_use
from dipp_toolkit.models.weight_sharing import trainable_parameters
from dipp_toolkit.planning.dry_run import Meter
from dipp_toolkit.training.setup.resolve import resolve, settle_precision
from dipp_toolkit.training.stepping import StopRequest
from dipp_toolkit.utils.step_parts import (
    ASSISTANT,
    BACKWARD,
    DECODER,
    GENERATOR,
    PARTS,
    REFERENCE,
    REST,
    REWARD,
    SAMPLES,
    UPDATES,
)

GIB = 2**30
BLUE = "def blueness(images, prompts):\n    return images[:, 2].mean((1, 2))\n"


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny pipeline, a reward and prompts."""
    folder = tmp_path_factory.mktemp("twin")
    write_pixart_twin(folder / "pixart")
    (folder / "blue.py").write_text(BLUE)
    (folder / "prompts.txt").write_text("a cat\na dog\n")
    return folder


@pytest.fixture
def words(twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is typed for a tiny run, which needs no more than a step to warm up."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dipp_toolkit.experiments.profile.run.WARM_UP", 1)
    line = (
        f"profile --generator {twin}/pixart --reference {twin}/pixart --prompts {twin}/prompts.txt --batch 2 "
        f"--reward {twin}/blue.py:blueness --device cpu --precision fp32 --steps 2"
    )
    return line.split()


def settings_of(twin: Path, **others: Any) -> TrainConfig:
    return TrainConfig(
        generator=str(twin / "pixart"),
        reference=str(twin / "pixart"),
        rewards={f"{twin}/blue.py:blueness": 1.0},
        prompts=str(twin / "prompts.txt"),
        batch_size=2,
        device="cpu",
        precision="fp32",
        **others,
    )


def test_every_part_is_measured_and_no_run_folder_is_left(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = [part["name"] for part in found["parts"]]
    kinds = [REWARD if name.startswith(REWARD) else name for name in names]
    assert kinds == [name for name in PARTS if name in kinds]
    assert set(PARTS) == set(kinds)
    assert found["steps"] == 2
    assert sum(part["seconds"] for part in found["parts"]) == pytest.approx(found["seconds"])
    parts = {part["name"]: part for part in found["parts"]}
    # A forward pass of each network costs the same here; backwards cost more.
    assert parts[SAMPLES]["tflop"] == parts[GENERATOR]["tflop"] == parts[REFERENCE]["tflop"] > 0
    assert parts[ASSISTANT]["tflop"] > 2 * parts[SAMPLES]["tflop"]
    assert parts[UPDATES]["launches"] > 0
    assert found["waits"] > 0
    assert found["held"]["optimiser states"] > 0
    assert list(tmp_path.iterdir()) == []


def test_the_weights_are_those_of_as_many_steps_that_nobody_measured(twin: Path, tmp_path: Path) -> None:
    config, _ = settle_precision(resolve(settings_of(twin, seed=3)), torch.device("cpu"), Processes())
    steps = WARM_UP + 1 + 2  # one is measured, one counted, one traced
    plain = profiled_loop(config, tmp_path / "plain")
    for _ in range(steps):
        plain.one_step()
    loop = profiled_loop(config, tmp_path / "profiled")
    Profiling(loop, 1, tmp_path / "step.json", StopRequest(), lambda what, step, of: None, tmp_path).run()
    assert loop.step == plain.step == steps
    for one, other in (
        (loop.parts.generator.network, plain.parts.generator.network),
        (loop.parts.assistant.denoiser.network, plain.parts.assistant.denoiser.network),
    ):
        pairs = zip(trainable_parameters(one), trainable_parameters(other), strict=True)
        assert all(torch.equal(mine, its) for mine, its in pairs)
    assert torch.equal(loop.parts.engine.random.get_state(), plain.parts.engine.random.get_state())


def test_operations_by_part_add_up_to_those_of_the_step(twin: Path, tmp_path: Path) -> None:
    config, _ = settle_precision(resolve(settings_of(twin)), torch.device("cpu"), Processes())
    loop = profiled_loop(config, tmp_path)
    loop.one_step()
    meter = PartMeter(torch.device("cpu"))
    with meter.step():
        loop.one_step()
    with Meter() as whole:
        loop.one_step()
    assert sum(meter.flops_by_part.values()) == whole.flops
    assert sum(meter.calls_by_part.values()) == whole.launches
    assert max(meter.held_by_part.values()) == whole.peak


def test_writes_a_trace_that_names_the_parts(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--trace", "step.json.gz"]) == 0
    out = capsys.readouterr().out
    assert "step.json.gz" in out
    with gzip.open(tmp_path / "step.json.gz", "rt") as file:
        events = json.load(file)["traceEvents"]
    marked = {event["name"] for event in events if str(event.get("name", "")).startswith(GPU_MARK)}
    assert {f"{GPU_MARK}{name}" for name in (SAMPLES, ASSISTANT, BACKWARD, REST)} <= marked
    assert [path.name for path in tmp_path.iterdir()] == ["step.json.gz"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--steps", "0"], "--steps 0 measures nothing; expected at least 1."),
        (
            ["--trace", "step.txt"],
            "--trace step.txt does not end in .json or .json.gz, as a trace must. Name such a file.",
        ),
        (
            ["--trace", "nowhere/a.json"],
            "--trace nowhere/a.json is in a folder that does not exist. Make nowhere, or name another one.",
        ),
        (["--device", "cuda:9"], "The device 'cuda:9' cannot be used here"),
    ],
)
def test_refuses_with_a_sentence_before_anything_is_loaded(
    more: list[str], sentence: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *more]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert sentence in told.err


def test_a_full_disk_is_a_sentence(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dipp_toolkit.experiments.profile.run.shutil.copyfile", full)
    assert main([*words, "--steps", "1", "--trace", "step.json"]) == 1
    assert "The trace could not be written to step.json" in capsys.readouterr().err


def test_an_interrupted_profile_shows_what_it_has(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = PartTimer._mark

    def stopped(timer: PartTimer) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        measured(timer)

    monkeypatch.setattr(PartTimer, "_mark", stopped)
    assert main([*words, "--json"]) == 130
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (found["steps"], found["asked"], found["interrupted"], found["tflop"]) == (1, 2, True, None)
    assert "Interrupted after 1 of 2 steps" in told.err


@pytest.fixture(scope="module")
def measured(twin: Path) -> Profile:
    """A profile of one step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dipp_toolkit.experiments.profile.run.WARM_UP", 1)
        return profile(settings_of(twin), 1)


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal(
    width: int, measured: Profile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda self: True))
    describe(measured)
    out = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    lines = [line for line in out.splitlines() if line.startswith(("│", "┃"))]
    assert lines
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)


def span(name: str, category: str, start: float, length: float) -> dict[str, Any]:
    return {"ph": "X", "name": name, "cat": category, "ts": start, "dur": length}


def test_reads_launches_waits_and_idle_time_of_a_gpus_trace() -> None:
    events = [
        span(f"{GPU_MARK}{REST}", "user_annotation", 100, 100),
        span(f"{GPU_MARK}{ASSISTANT}", "user_annotation", 110, 50),
        span(f"{GPU_MARK}{SAMPLES}", "user_annotation", 115, 10),
        span("cudaLaunchKernel", "cuda_runtime", 116, 1),
        span("cudaLaunchKernelExC", "cuda_runtime", 130, 1),  # a backward pass's thread, at the same time
        span("cuLaunchKernel", "cuda_driver", 140, 1),
        span("cudaGraphLaunch", "cuda_runtime", 180, 1),
        span("cudaStreamSynchronize", "cuda_runtime", 150, 5),
        span("cudaDeviceSynchronize", "cuda_runtime", 210, 50),  # the profiler's own, after the step
        span("cudaLaunchKernel", "cuda_runtime", 90, 1),
        span("gemm", "kernel", 120, 20),
        span("gemm", "kernel", 130, 20),
        span("Memcpy DtoH (Device -> Pinned)", "gpu_memcpy", 160, 10),
    ]
    use = gpu_use(events)
    assert use.launches == {SAMPLES: 1, ASSISTANT: 2, REST: 1}
    assert use.waits == {ASSISTANT: 1}
    assert use.waited == {ASSISTANT: pytest.approx(5e-6)}
    assert use.to_host == 1
    assert (use.seconds, use.busy) == (pytest.approx(100e-6), pytest.approx(40e-6))


def test_a_step_that_something_else_slowed_counts_as_one(twin: Path, tmp_path: Path) -> None:
    config = resolve(settings_of(twin, steps=1))
    measured = Profiling(profiled_loop(config, tmp_path), 4, None, StopRequest(), lambda *_: None, tmp_path)
    usual = {SAMPLES: 0.1, ASSISTANT: 0.3, REST: 0.6}
    measured.timer.seconds = [1.0, 1.0, 1.0, 9.0, 1.0]
    measured.timer.by_part = [usual, usual, usual, {**usual, SAMPLES: 8.1}, usual]
    parts = {part.name: part for part in measured._parts(PeakRate(1.0, "made up"))}
    assert [round(part.share, 6) for part in parts.values()] == [0.1, 0.3, 0.6]
    assert parts[SAMPLES].share_low == pytest.approx(0.1)
    assert parts[SAMPLES].seconds == pytest.approx(0.1)


def found_on_gpu(**others: Any) -> Profile:
    """A made-up profile of a GPU."""
    parts = [
        Part(SAMPLES, 0.1, 0.1, 0.1, memory=10 * GIB),
        Part(ASSISTANT, 0.3, 0.3, 0.3, memory=12 * GIB),
        Part(DECODER, 0.2, 0.2, 0.2, waits=4, memory=30 * GIB),
        Part(UPDATES, 0.05, 0.05, 0.05, memory=5 * GIB),
    ]
    values: dict[str, Any] = {
        "settings": {}, "device": "a GPU", "device_type": "cuda", "batch": 4, "steps": 10, "asked": 10, "seconds": 1.0,
        "quartiles": (1.0, 1.0), "parts": tuple(parts), "held": {"reference": 6 * GIB, "optimiser states": 2 * GIB},
        "peak_memory": 30 * GIB, "device_memory": 80 * GIB, "busy": 0.9, "waited": 0.0,
    }  # fmt: skip
    return Profile(**{**values, **others})


SOUND: dict[str, Any] = {"reuse_samples": True, "precision": "bf16", "frozen_precision": "bf16", "batch_size": 4}


@pytest.mark.parametrize(
    ("measured", "settings", "changes", "words"),
    [
        ({}, {}, set(), ""),
        ({}, {"reuse_samples": False}, {"reuse_samples"}, "Samples for the assistant's updates take 10%"),
        (
            {"parts": (Part(DECODER, 0.2, 0.2, 0.15), Part("reward hps", 0.3, 0.3, 0.2))},
            {"rewards": {"hps": 1.0}},
            {"reward.hps.latent"},
            "Decoding and rewards take 50% of the step. Set reward.hps.latent=true",
        ),
        # In one step or two, or in most of them but not in three of four, it may have been something else that ran.
        ({"steps": 2}, {"reuse_samples": False}, set(), ""),
        ({"parts": (Part(SAMPLES, 0.3, 0.3, 0.05),)}, {"reuse_samples": False}, set(), ""),
        (
            {"parts": (Part(ASSISTANT, 0.3, 0.3, memory=30 * GIB),), "device_memory": 32 * GIB},
            {"gradient_checkpointing": True},
            {"batch_size", "accumulation"},
            "Set batch_size=2 and accumulation=2: the same batch in smaller parts",
        ),
        (
            {"parts": (Part(ASSISTANT, 0.3, 0.3, memory=30 * GIB),), "device_memory": 32 * GIB},
            {"gradient_checkpointing": True, "batch_size": 1},
            {"activation_offload"},
            "wait in the host's memory",
        ),
        (
            {"parts": (Part(ASSISTANT, 0.3, 0.3, memory=30 * GIB),), "device_memory": 32 * GIB},
            {"gradient_checkpointing": True, "batch_size": 1, "compile": "graphs"},
            set(),
            "",
        ),
        ({}, {"activation_offload": True}, {"activation_offload"}, "copies activations to the host and back"),
        ({}, {"reward_batch": 1}, {"reward_batch"}, "scores 1 of 4 samples at a time"),
        (
            {"device_memory": 32 * GIB},
            {"decode_checkpointing": True, "reward_batch": 1},
            {"recompute_generator"},
            "The generator's graph is held meanwhile",
        ),
        ({"busy": 0.38}, {"compile": "off"}, {"compile"}, "62% of the step the GPU waits for Python"),
        ({"busy": 0.38}, {"compile": "on"}, {"compile"}, "Set compile=graphs"),
        ({"device_memory": 32 * GIB}, {}, {"decode_checkpointing"}, "Decoding and rewards set the peak: 30.00 GiB"),
        ({"device_memory": 32 * GIB}, {"decode_checkpointing": True}, {"reward_batch"}, "12.00 GiB"),
        ({}, {"gradient_checkpointing": True}, {"gradient_checkpointing"}, "computes again what there is room to keep"),
        ({}, {"frozen_precision": "fp32", "mode": "full"}, {"frozen_precision"}, "Frozen weights are float32"),
        (
            {"peak_memory": 15 * GIB, "device_memory": 16 * GIB, "parts": (Part(UPDATES, 0.05, 0.05),)},
            {"gradient_checkpointing": True},
            {"frozen_precision"},
            "If nothing else fits, set frozen_precision=int8 (pip install 'dipp-toolkit[8bit]')",
        ),
        ({"waited": 0.2}, {}, set(), "Look first at the part 'decoder'"),
    ],
)
def test_advises_what_the_measurement_calls_for_and_nothing_else(
    measured: dict[str, Any], settings: dict[str, Any], changes: set[str], words: str
) -> None:
    given = advice(found_on_gpu(**measured), TrainConfig(**{**SOUND, **settings}))
    assert {name for one in given for name in one.settings} == set(changes)
    assert words in " ".join(map(str, given))
    assert bool(given) == bool(words)
    known = TrainConfig.model_fields.keys()
    assert all(name in known or name.startswith("reward.") for name in changes)
