"""Does a cell of the study and says what was measured: a training is judged at once, and its weights may then go."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from benchmarks._shared.teacher import best_guidance
from benchmarks.fair_study.anchors import measured_anchor
from benchmarks.fair_study.cells import ANCHOR, COLUMN, PACE, SEARCH, Cell
from benchmarks.fair_study.objectives import SHARED
from benchmarks.fair_study.records import Record
from benchmarks.fair_study.sittings import (
    CHOICE,
    REPORTED,
    SITTINGS,
    judged,
    one_step_images,
    teacher_images,
    the_judge,
    the_reference,
)
from benchmarks.fair_study.worlds import WORLDS, World
from benchmarks.family_study.pace import turn_by_turn
from dipp_toolkit import load_generator
from dipp_toolkit.config import TrainConfig
from dipp_toolkit.distributed import Processes
from dipp_toolkit.registry import get_registry
from dipp_toolkit.training.run import train
from dipp_toolkit.utils.device import environment
from dipp_toolkit.utils.fingerprint import circumstances

START, TEACHER = "start", "teacher"
TEACHER_STEPS = 50
FROM_REFERENCE = "reference"
"""Value of a cell's `assistant` where that starts as a copy of the reference and not as saved with the generator."""
READ_OUT = ("readout", "input_scale", "generator_steps")
"""Recommendations that belong to a generator's weights, and go with them where they are named by their folder."""
RUN = "run"


def machine() -> str:
    """What this runs on: rows of several machines differ in their last digits."""
    about, kernels = environment(torch.device("cpu")), circumstances(torch.device("cpu"), 1)["kernels"]
    versions = ", ".join(f"{name} {about[name]}" for name in ("python", "torch", "diffusers"))
    return f"{about['device']}, {kernels}, {versions}"


def without_assistant(world: World, folder: Path) -> Path:
    """A copy of the world's generator that has no assistant saved with it."""
    place = folder / "start-without-assistant"
    if not place.is_dir():
        source = cast(Any, load_generator(world.generator)).folder
        beside = folder / ".start.partial"
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(source, beside, ignore=shutil.ignore_patterns("assistant"))
        beside.rename(place)
    return place


def settings_of(cell: Cell, folder: Path) -> dict[str, Any]:
    """All settings of a cell's training."""
    world, own = WORLDS[cell.world], dict(cell.settings)
    settings: dict[str, Any] = {**SHARED, **world.settings, "generator": world.generator}
    settings["reference"] = world.reference
    if own.pop("assistant", "") == FROM_REFERENCE:
        recommended = get_registry().find("generator", world.generator).defaults
        settings |= {name: recommended[name] for name in READ_OUT if name in recommended}
        settings["generator"] = str(without_assistant(world, folder))
    if own.pop("without_rewards", False):
        settings["rewards"] = {}
    return settings | own | {"steps": cell.updates, "seed": cell.seed}


def trained(cell: Cell, folder: Path) -> dict[str, Any]:
    """Train a cell, or go on where that was cut off; its numbers, the judge's included."""
    out = folder / RUN
    config = TrainConfig(**settings_of(cell, folder), out=out, resume=(out / "config.yaml").is_file())
    summary = train(config, processes=Processes()).summary
    gc.collect()
    sitting, world = CHOICE if cell.part == SEARCH else REPORTED, WORLDS[cell.world]
    generator = load_generator(str(out / "final"))
    numbers, per_prompt = judged(one_step_images(generator, sitting, world.reference), sitting)
    return numbers | {
        "sitting": sitting.name,
        "seconds": round(float(summary["seconds"]), 1),
        "per_prompt": [] if cell.part == SEARCH else per_prompt,
    }


def column(cell: Cell) -> dict[str, Any]:
    """Numbers of images that are not of this study's runs: the generator that they start from, or the teacher."""
    world, sitting = WORLDS[cell.world], SITTINGS[cell.settings["sitting"]]
    shown: dict[str, Any] = {}
    if cell.name == TEACHER:
        shown["guidance"] = best_guidance(the_judge(), the_reference(world.reference))["guidance"]
        images = teacher_images(sitting, world.reference, TEACHER_STEPS, shown["guidance"])
    else:
        images = one_step_images(load_generator(world.generator), sitting, world.reference)
    numbers, per_prompt = judged(images, sitting)
    return numbers | shown | {"sitting": sitting.name, "per_prompt": per_prompt}


def pace(cell: Cell, folder: Path) -> dict[str, Any]:
    """Processor seconds of an update of every sibling with its chosen settings, turn by turn in one process."""
    world = WORLDS[cell.world]
    places = {**world.settings, "generator": world.generator, "reference": world.reference}
    chosen: Mapping[str, Mapping[str, Any]] = dict(cell.settings)
    settings = {name: {**SHARED, **places, **dict(own)} for name, own in chosen.items()}
    seconds = turn_by_turn(settings, folder, time.process_time)
    return {"seconds_per_update": {name: round(value, 4) for name, value in seconds.items()}}


def do(cell: Cell, basis: str, folder: Path) -> Record:
    """Do a cell.

    Args:
        cell: what is to be done.
        basis: digest of what its numbers depend on beside itself.
        folder: its own, for what it needs on the way.
    """
    if cell.part == ANCHOR:
        numbers: dict[str, Any] = {"reward_scale": measured_anchor(WORLDS[cell.world], cell.name, folder / RUN)}
    elif cell.part == COLUMN:
        numbers = column(cell)
    elif cell.part == PACE:
        numbers = pace(cell, folder)
    else:
        numbers = trained(cell, folder)
    per_prompt = numbers.pop("per_prompt", ())
    return Record.made(cell, basis, numbers, per_prompt, machine())
