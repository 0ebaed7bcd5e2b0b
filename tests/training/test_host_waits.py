"""A training step reads its device's numbers in one transfer an update, and waits for nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dipp_toolkit.config import make_config
from dipp_toolkit.objective.mixing.scale import MEASURED
from dipp_toolkit.training.loop import TrainingLoop
from dipp_toolkit.training.run_state.run_folder import RunFolder
from dipp_toolkit.training.setup.assembly import assemble
from dipp_toolkit.training.setup.resolve import resolve
from dipp_toolkit.utils.host_waits import HostWaits
from dipp_toolkit.utils.stand_in_device import stand_in_device
from tiny_runs import colour_world

COLOURS = """
def blue(images, prompts):
    return images[:, 2].mean((1, 2))

def red(images, prompts):
    return images[:, 0].mean((1, 2))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_world(tmp_path_factory.mktemp("world"), COLOURS)


@pytest.fixture
def device() -> Iterator[torch.device]:
    with stand_in_device() as device:
        yield device


def loop_of(world: Path, device: torch.device, **more: Any) -> TrainingLoop:
    settings = {
        "generator": str(world / "tiny"), "reference": str(world / "tiny"), "prompts": str(world / "prompts.txt"),
        "batch_size": 2, "steps": 100, "eval_count": 2, "reference_steps": 1, "precision": "fp32", "mode": "full",
        "rewards": {f"{world}/colours.py:blue": 1.0, f"{world}/colours.py:red": 0.5},
        "device": str(device), "out": world / "run", "assistant_rounds": 1, "reward_scale": 1.0, "guidance": 2.0,
    }  # fmt: skip
    if "floors" in more:
        more["floors"] = {f"{world}/colours.py:blue": more["floors"]}
    config = resolve(make_config({**settings, **more}))
    return TrainingLoop(config, assemble(config), RunFolder(world / "run"))


def waits_of_a_step(loop: TrainingLoop) -> HostWaits:
    """Of the second step: in the first, optimisers and statistics begin."""
    loop.one_step()
    with HostWaits() as waits:
        loop.one_step()
    return waits


CASES: dict[str, dict[str, Any]] = {
    "kl budget, two updates of the assistant": {"kl_budget": 0.01, "assistant_rounds": 2},
    "guidance 1": {"guidance": 1.0},
    "normalised and clipped": {"balance": "normalised", "reward_clip": 0.1},
    "a floor": {"floors": 0.9},
    "adapters": {"mode": "lora", "lora_rank": 2},
    "two steps": {"generator_steps": 2},
    "every of two steps": {"generator_steps": 2, "supervise": "every"},
    "generator run again": {"recompute_generator": True},
    "sizes": {"resolution": 32, "aspects": "2:1,1:2"},
    "times and weighting": {"weighting": "dmd", "time_sampling": "logit-normal"},
}


USUAL = ("kl budget, two updates of the assistant", "adapters", "every of two steps")
"""Cases that between them go through every part that could wait; the others are among the exhaustive ones."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in USUAL else pytest.mark.exhaustive) for case in CASES]
)
def test_an_update_reads_its_numbers_in_one_transfer(world: Path, device: torch.device, case: str) -> None:
    waits = waits_of_a_step(loop_of(world, device, **CASES[case]))
    updates = CASES[case].get("assistant_rounds", 1) + 1
    assert waits.by_kind == {"to host": updates}, waits.table()


def test_a_scale_that_is_measured_is_read_until_it_is_known(world: Path, device: torch.device) -> None:
    loop = loop_of(world, device, reward_scale="auto", pull=0.5)
    assert waits_of_a_step(loop).total == 2 + 1
    scale = loop.parts.engine.mix.scale
    for _ in range(MEASURED):
        scale.take(dict.fromkeys(scale.sizes, 1.0), 1.0, 1.0)
    with HostWaits() as waits:
        loop.one_step()
    assert waits.total == 2


@pytest.mark.exhaustive
@pytest.mark.parametrize(("balance", "reads"), [("pcgrad", 1 + 2), ("mgda", 1 + 3)])
def test_balancing_reads_more(world: Path, device: torch.device, balance: str, reads: int) -> None:
    """Which gradients are zero; then the order of each reward, or whether each subset could be solved."""
    waits = waits_of_a_step(loop_of(world, device, balance=balance))
    assert waits.total == 2 + reads, waits.table()


def test_a_reward_that_reads_the_device_is_found_with_its_line(world: Path, device: torch.device) -> None:
    reward = (
        "def reads(images, prompts):\n    bright = float(images.max())\n    return images.mean((1, 2, 3)) * bright\n"
    )
    (world / "reads.py").write_text(reward)
    waits = waits_of_a_step(loop_of(world, device, rewards={f"{world}/reads.py:reads": 1.0}))
    assert waits.total == 2 + 1
    (wait,) = [wait for wait in waits.counts if wait.kind == "read"]
    assert wait.where.startswith("reads.py:2 reads < ")
