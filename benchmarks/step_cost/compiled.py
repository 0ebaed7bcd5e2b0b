"""Launches of a compiled step, of a network with the published layers and few channels.

Launches depend on the layers and not on their width. Kernels are those that inductor writes for a CPU, and the calls
of libraries among them: inductor runs, which needs numbers, and so a device with memory for them.
"""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.full_size_step.case import random_weights
from benchmarks.step_cost.rewards import Huge, Large
from benchmarks.step_cost.step import BATCH, config_of

NARROW: dict[str, dict[str, dict[str, Any]]] = {
    "pixart-alpha": {
        "transformer": {
            "num_attention_heads": 2, "attention_head_dim": 16, "cross_attention_dim": 32, "caption_channels": 32,
            "sample_size": 8,
        },
        "vae": {"block_out_channels": [32, 32, 32, 32], "sample_size": 64},
    }
}  # fmt: skip
"""What differs from the published configurations, by pipeline and component."""
TOWER = 64
"""Width of the rewards' towers."""
RANK = 8
"""Of adapters; narrower than the layers."""
STEPS = 6
WARM = 3
"""Steps after which nothing is compiled any more."""


def narrowed(blueprint: Any, changes: dict[str, dict[str, Any]], folder: Path) -> Any:
    """The blueprint with other widths."""
    from dipp_toolkit.utils.json_files import read_json

    shutil.copytree(blueprint.folder, folder)
    for component, values in changes.items():
        path = folder / component / "config.json"
        path.write_text(json.dumps(read_json(path) | values), encoding="utf-8")
    return replace(blueprint, folder=folder)


def count_compiled(pipeline: str, mode: str, work: Path) -> dict[str, Any]:
    """A step's launches, eager and compiled, and the compilations before and after step 3.

    Args:
        pipeline: a blueprint's name.
        mode: `"full"` or `"lora"`.
        work: folder for what is made on the way.
    """
    from dipp_toolkit.models.blueprints import find_pipeline

    blueprint = narrowed(find_pipeline(pipeline), NARROW[pipeline], work / pipeline)
    eager, _ = launches_of_a_step(blueprint, pipeline, mode, work, "off")
    compiled, graphs = launches_of_a_step(blueprint, pipeline, mode, work, "on")
    return {
        "eager": eager,
        "compiled": compiled,
        "graphs": graphs[WARM - 1],
        "compiled_later": graphs[-1] - graphs[WARM - 1],
    }


def launches_of_a_step(
    blueprint: Any, pipeline: str, mode: str, work: Path, compile: str
) -> tuple[dict[str, dict[str, int]], list[int]]:
    """Launches of the last of some steps, by part, and compilations until the end of each."""
    from dipp_toolkit.models import launches
    from dipp_toolkit.models.compilation import compile_blocks, forget_compilations, report
    from dipp_toolkit.planning.dry_run import gpu_casts
    from dipp_toolkit.training.setup.assembly import assemble

    forget_compilations()
    config = config_of(blueprint, pipeline, mode, work, {"compile": compile, "lora_rank": RANK})
    counting = partial(compile_blocks, backend=launches.counting_inductor)
    graphs, counted = [], {}
    with ExitStack() as stack:
        for tower in (Huge, Large):
            stack.enter_context(patch.object(tower, "width", TOWER))
        for user in ("training.optim", "training.setup.assembly"):
            stack.enter_context(patch(f"dipp_toolkit.{user}.compile_blocks", counting))
        stack.enter_context(random_weights(blueprint, torch.device("cpu")))
        parts = assemble(config)
        stack.enter_context(gpu_casts())
        stack.enter_context(patch("torch.nn.utils.clip_grad._has_foreach_support", lambda *_: True))
        rows = parts.conditions[list(range(BATCH))]
        for step in range(STEPS):
            with launches.counted_launches() as counted["assistant"]:
                parts.engine.update_assistants([rows] * parts.engine.assistant_rounds)
            with launches.counted_launches() as counted["generator"]:
                parts.engine.update_generator(rows, step)
                parts.average.update()
            graphs.append(report().graphs)
    if report().eager:
        raise RuntimeError("\n".join(report().warnings()))
    return {name: {"eager": part.eager, "compiled": part.compiled} for name, part in counted.items()}, graphs
