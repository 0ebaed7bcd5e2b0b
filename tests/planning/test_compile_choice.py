"""What `compile: auto` is, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dipp_toolkit.config import TrainConfig, make_config
from dipp_toolkit.planning.compile_choice import LEFT, SECONDS, choice_of, choose_compile, saved_seconds
from dipp_toolkit.planning.machines import GPUS, LAUNCH, UTILISATION
from dipp_toolkit.training.run_state.start_settings import as_begun, read_begun_settings

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("value", "name"), [(True, "on"), (False, "off"), ("true", "on"), ("graphs", "graphs")])
def test_the_switch_of_before_is_read(value: Any, name: str) -> None:
    assert TrainConfig(compile=value).compile == name


def test_auto_is_off_on_a_cpu_without_a_word() -> None:
    choice = choose_compile(TrainConfig(), CPU)
    assert choice.name == "off" and not choice.note


def test_what_is_named_is_kept_and_said() -> None:
    assert choose_compile(TrainConfig(compile="on"), CPU).note == "compile on: as asked"
    assert "need a GPU" in choose_compile(TrainConfig(compile="graphs"), CPU).note
    assert not choose_compile(TrainConfig(compile="off"), CPU).note


def test_a_short_run_on_a_gpu_is_not_compiled_and_needs_no_plan() -> None:
    choice = choose_compile(TrainConfig(steps=10), GPU)
    assert choice.name == "off" and "10 steps are too few" in choice.note


def test_a_run_that_earns_its_compilation_back_is_compiled() -> None:
    assert choice_of(1000, 1.1 * SECONDS / 1000).name == "on"
    assert choice_of(1000, 0.9 * SECONDS / 1000).name == "off"


def test_only_calls_that_the_gpu_waits_for_are_saved() -> None:
    rate = GPUS["H100"][0] * 1e12 * UTILISATION
    plan: Any = SimpleNamespace(
        pieces={"H100": {"waits": 1000 * LAUNCH, "busy": 1.0, "between": 1000 * LAUNCH}},
        flops={"waits": 0.0, "busy": rate, "between": 0.9 * 1000 * LAUNCH * rate},
        launches={"waits": 1000, "busy": 10, "between": 1000},
    )
    assert saved_seconds(plan, "H100") == pytest.approx((1 - LEFT + 0.1) * 1000 * LAUNCH)


def test_a_resumed_run_keeps_what_its_start_chose(tmp_path: Path) -> None:
    assert as_begun(TrainConfig(), TrainConfig(compile="on")).compile == "on"
    assert as_begun(TrainConfig(compile="off"), TrainConfig(compile="on")).compile == "off", "which is then refused"
    for line, name in (("", "off"), ("compile: false", "off"), ("compile: true", "on"), ("compile: auto", "auto")):
        (tmp_path / "config.yaml").write_text(f"seed: 1\n{line}\n", encoding="utf-8")
        assert make_config(read_begun_settings(tmp_path / "config.yaml")).compile == name
