"""One full-size case: its pipeline built from the published configuration, with random weights made on the device."""

from __future__ import annotations

import gc
import platform
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.full_size_step.watch import Watch, by_piece, resident

HERE = Path(__file__).parent
GIB = 2**30
PROMPTS = [f"prompt {number}" for number in range(8)]
THRIFTY: dict[str, Any] = {"recompute_generator": True, "gradient_checkpointing": True, "decode_checkpointing": True}
SETTINGS: dict[str, Any] = {
    "precision": "bf16",
    "frozen_precision": "bf16",
    "compile": "off",
    "eval_count": 1,
    "ema": 0.9,
}
REWARD = f"{HERE / 'reward.py'}:RandomHPSv2"


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        pipeline: a blueprint's name.
        mode: `"full"` or `"lora"`.
        batch: samples a step.
        thrifty: whether graphs are recomputed rather than kept (`THRIFTY`).
        more: further settings.
    """

    pipeline: str
    mode: str = "lora"
    batch: int = 1
    thrifty: bool = False
    more: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, more: dict[str, Any] | None = None) -> Case:
        """`pipeline[:mode[:batch[:thrifty]]]`."""
        words = [*text.split(":"), "", "", ""][:4]
        return cls(words[0], words[1] or "lora", int(words[2] or 1), words[3] == "thrifty", dict(more or {}))

    def __str__(self) -> str:
        return f"{self.pipeline}:{self.mode}:{self.batch}" + (":thrifty" if self.thrifty else "")

    @property
    def settings(self) -> dict[str, Any]:
        """Those that a plan of it shares."""
        thrift = THRIFTY if self.thrifty else {}
        own = {"guidance": recommended(self.pipeline).get("guidance", 4.5)}
        return {**SETTINGS, **own, **thrift, "mode": self.mode, "batch_size": self.batch, **self.more}


def recommended(pipeline: str) -> Mapping[str, Any]:
    """The settings that come with a reference."""
    from dipp_toolkit.registry import get_registry

    entry = get_registry().entries["reference"].get(pipeline)
    return entry.defaults if entry is not None else {}


def use_plugins_of_the_checkout() -> None:
    """Find the built-in plugins where the package is on the path and not installed."""
    from dipp_toolkit import registry

    if any(registry.entry_points(group=registry.GROUP)):
        return
    named = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["project"]["entry-points"][registry.GROUP]
    points = [EntryPoint(name, value, registry.GROUP) for name, value in named.items()]
    registry.entry_points = lambda group: points  # type: ignore[assignment]


def random_component(blueprint: Any, device: torch.device) -> Any:
    """Stands in for `load_component`: the architecture with random weights, made where they will be used."""

    def build(folder: Path, name: str, place: Path | None = None, dtype: torch.dtype = torch.float32) -> Any:
        from dipp_toolkit.models.files.folders import quiet_loading

        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)  # never larger than it will be
        try:
            with quiet_loading(), device:
                return blueprint.build(name).to(dtype)
        finally:
            torch.set_default_dtype(before)

    return build


@contextmanager
def random_weights(blueprint: Any, device: torch.device) -> Iterator[None]:
    """Inside, pipelines are loaded without files."""
    build = random_component(blueprint, device)
    with (
        patch("dipp_toolkit.models.reference.check_component", lambda *_: None),  # there are no weights to check
        patch("dipp_toolkit.models.reference.load_component", build),
        patch("dipp_toolkit.models.generator.load_component", build),
    ):
        yield


def write_prompts(blueprint: Any, cache: Path, dtype: torch.dtype) -> None:
    """Random embeddings in the prompt cache: no text encoder is needed to train."""
    from dipp_toolkit.diffusion.condition import Condition
    from dipp_toolkit.models.text_encoders import PromptEncoder
    from dipp_toolkit.prompts.cache import PromptCache, encoder_folder
    from dipp_toolkit.utils.json_files import read_json

    texts = ("", *PROMPTS)
    family = blueprint.family
    blank = family.blank(read_json(blueprint.folder / family.network_name / "config.json"), len(texts))
    tensors = {
        name: torch.randn_like(tensor) if tensor.is_floating_point() else tensor.clone()
        for name, tensor in blank.tensors.items()
    }
    prompts = PromptCache(encoder_folder(cache, PromptEncoder(blueprint.folder, family, dtype)))
    if "" not in prompts:
        prompts.add(Condition(texts, tensors))


def loop_of(case: Case, device: torch.device, work: Path) -> Any:
    """The training loop of a case."""
    from dipp_toolkit.config import TrainConfig
    from dipp_toolkit.models.blueprints import find_pipeline
    from dipp_toolkit.training.run import TrainingLoop
    from dipp_toolkit.training.run_state.run_folder import RunFolder
    from dipp_toolkit.training.setup.assembly import assemble
    from dipp_toolkit.training.setup.resolve import resolve
    from dipp_toolkit.utils.precision import DTYPES

    blueprint = find_pipeline(case.pipeline)
    (work / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    write_prompts(blueprint, work / "cache", DTYPES[case.settings["frozen_precision"]])
    config = resolve(
        TrainConfig(
            generator=str(blueprint.folder), reference=str(blueprint.folder), rewards={REWARD: 1.0},
            reward_options={REWARD: {"device": str(device)}}, prompts=str(work / "prompts.txt"),
            prompt_cache=work / "cache", readout=recommended(case.pipeline).get("readout"), steps=10**6,
            input_scale=recommended(case.pipeline).get("input_scale"),
            device=str(device), **case.settings,
        )
    )  # fmt: skip
    with random_weights(blueprint, device):
        parts = assemble(config)
    return TrainingLoop(config, parts, RunFolder(work / "run"))


def measure(case: Case, device: torch.device, steps: int, work: Path) -> dict[str, Any]:
    """Build a case, step it, and say what it took."""
    from dipp_toolkit.experiments.profile.parts import PartMeter, wait
    from dipp_toolkit.experiments.profile.run import hooked

    watch, meter, cuda = Watch(device), PartMeter(device), device.type == "cuda"
    before = torch.cuda.memory_allocated() if cuda else resident()
    started = time.perf_counter()
    loop = loop_of(case, device, work)
    wait(device)
    built = time.perf_counter() - started
    held = torch.cuda.memory_allocated() if cuda else resident()
    with hooked(loop):
        for _ in range(2 if cuda else 0):  # kernels are chosen and loaded
            loop.one_step()
        for _ in range(steps):
            with watch.step():
                loop.one_step()
        reserved = torch.cuda.max_memory_reserved() if cuda else max(watch.peaks.values())
        with meter.step():
            loop.one_step()
    peak = max(watch.peaks.values())
    sums = {name: sum(step.get(name, 0.0) for step in watch.by_part) for name in watch.peaks}
    seconds, peaks, operations = by_piece(sums), by_piece(watch.peaks, largest=True), by_piece(meter.flops_by_part)
    network = loop.parts.generator.network
    return {
        "case": str(case), "pipeline": case.pipeline, "mode": case.mode, "batch": case.batch,
        "settings": case.settings, "seconds": watch.seconds, "built_seconds": built, "before_gib": before / GIB,
        "held_gib": held / GIB, "peak_gib": peak / GIB, "reserved_gib": reserved / GIB,
        "parts": {
            name: {
                "seconds": seconds[name] / steps, "peak_gib": peaks[name] / GIB,
                "tflop": operations.get(name, 0) / 1e12,
            }
            for name in seconds
        },
        "trainable": sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad),
        "ran_on": where(device),
    }  # fmt: skip


def where(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def measure_or_say(case: Case, device: torch.device, steps: int, work: Path) -> dict[str, Any]:
    """`measure`, or why it could not be: too little memory, numbers that overflowed."""
    from dipp_toolkit.errors import DippError

    try:
        return measure(case, device, steps, work)
    except (torch.cuda.OutOfMemoryError, DippError) as error:
        words = str(error).splitlines()[0]
    return {"case": str(case), "pipeline": case.pipeline, "mode": case.mode, "failed": words, "ran_on": where(device)}


def forget() -> None:
    """Free what the last case left on the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
