"""A training step at full size on tensors that have shapes and no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.full_size_step.case import SETTINGS, random_weights, recommended, write_prompts
from benchmarks.step_cost.calls import Calls
from benchmarks.step_cost.rewards import VisionTower

HERE = Path(__file__).parent
REWARDS = [f"benchmarks.step_cost.rewards:{name}" for name in ("Huge", "Large")]
BATCH = 4
KEPT: list[Any] = []
"""What was counted; see `run.main`."""


def converted(network: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Stands in for `Module._apply`, which cannot put one tensor without memory into another's place."""
    for module in network.modules():
        for kept in (module._parameters, module._buffers):
            for name, tensor in kept.items():
                changed = tensor if tensor is None else change(tensor)
                if changed is not tensor:
                    trained = isinstance(tensor, nn.Parameter)
                    kept[name] = nn.Parameter(changed, tensor.requires_grad) if trained else changed  # type: ignore
    return network


@contextmanager
def without_memory(mode: FakeTensorMode) -> Iterator[None]:
    """Inside, networks are built of tensors without memory; all else is as ever, and schedules are made of numbers."""
    from dipp_toolkit.models.blueprints import PipelineBlueprint

    build, tower = PipelineBlueprint.build, VisionTower.__init__

    def built(blueprint: PipelineBlueprint, component: str) -> nn.Module:
        with mode:
            return build(blueprint, component)

    def made(reward: VisionTower) -> None:
        with mode:
            tower(reward)

    with (
        patch.object(nn.Module, "_apply", converted),
        patch.object(PipelineBlueprint, "build", built),
        patch.object(VisionTower, "__init__", made),
    ):
        yield


def config_of(blueprint: Any, pipeline: str, mode: str, work: Path, more: Mapping[str, Any]) -> Any:
    """The settings of a case, with its prompts encoded.

    Args:
        blueprint: whose configurations are taken.
        pipeline: its name, by which recommended settings are found.
        mode: `"full"` or `"lora"`.
        work: folder for what is made on the way.
        more: further settings.
    """
    from dipp_toolkit.config import TrainConfig
    from dipp_toolkit.training.setup.resolve import resolve
    from dipp_toolkit.utils.precision import DTYPES

    known = recommended(pipeline)
    settings = SETTINGS | {"guidance": known.get("guidance", 4.5), "mode": mode, "batch_size": BATCH, **more}
    work.mkdir(parents=True, exist_ok=True)
    (work / "prompts.txt").write_text("\n".join(f"prompt {number}" for number in range(8)), encoding="utf-8")
    write_prompts(blueprint, work / "cache", DTYPES[settings["frozen_precision"]])
    return resolve(
        TrainConfig(
            generator=str(blueprint.folder), reference=str(blueprint.folder), rewards=dict.fromkeys(REWARDS, 1.0),
            prompts=str(work / "prompts.txt"), prompt_cache=work / "cache", readout=known.get("readout"),
            input_scale=known.get("input_scale"), steps=10**6, device="cpu", **settings,
        )
    )  # fmt: skip


def count(pipeline: str, mode: str, work: Path, more: Mapping[str, Any] | None = None) -> dict[str, Calls]:
    """The calls of a step, by part: `assistant` and `generator` update.

    Args:
        pipeline: a blueprint's name.
        mode: `"full"` or `"lora"`.
        work: folder for what is made on the way.
        more: further settings.
    """
    from dipp_toolkit.diffusion.schedules import usable_times
    from dipp_toolkit.models.blueprints import find_pipeline
    from dipp_toolkit.planning.dry_run import gpu_casts
    from dipp_toolkit.training.setup.assembly import assemble

    blueprint = find_pipeline(pipeline)
    config = config_of(blueprint, pipeline, mode, work, more or {})
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with without_memory(fake), random_weights(blueprint, torch.device("cpu")):
        parts = assemble(config)
    KEPT.append(parts)
    engine, rows = parts.engine, parts.conditions[list(range(BATCH))]
    generator: Any = parts.generator
    for denoiser in (parts.reference.denoiser, generator.denoiser):
        usable_times(denoiser.schedule)  # reads numbers, once
    with fake, gpu_casts(), patch("torch.nn.utils.clip_grad._has_foreach_support", lambda *_: True):
        for step in range(2):  # what is made once is there in the second
            counted = {"assistant": Calls(), "generator": Calls()}
            with counted["assistant"]:
                engine.update_assistants([rows] * engine.assistant_rounds)
            with counted["generator"]:
                engine.update_generator(rows, step)
                parts.average.update()
    return counted
