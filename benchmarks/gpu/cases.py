"""What is measured on a GPU, in the order of what matters, and a measurement in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dipp_toolkit.config import TrainConfig

HERE = Path(__file__).parent
FLUX = "flux:lora:1:thrifty"


@dataclass(frozen=True)
class Variant:
    """A case and how it is run.

    Attributes:
        case: `pipeline:mode:batch[:thrifty]`, as in `full_size_step`.
        how: `eager`, `compiled`, `graphs`, or a name of its own.
        settings: beside the case's.
        environment: variables of its process.
        attention: attention kernels that are allowed, all where empty.
        limit: seconds after which it is ended.
    """

    case: str
    how: str = "eager"
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    attention: str = ""
    limit: float = 90.0

    @property
    def name(self) -> str:
        """Of its row."""
        return f"{self.case}, {self.how}"


WAYS = {"eager": {"compile": "off"}, "compiled": {"compile": "on"}, "graphs": {"compile": "graphs"}}
"""Settings by how a variant is run."""


def variants() -> list[Variant]:
    """All, what matters most first: the budget may end before they do."""
    order = [
        ("pixart-alpha:full:4", "eager", 60),
        ("pixart-alpha:full:16", "eager", 70),
        ("pixart-alpha:full:16", "compiled", 120),
        ("pixart-alpha:full:4", "compiled", 100),
        ("sdxl:lora:2", "eager", 80),
        ("sdxl:lora:2", "compiled", 140),
        ("pixart-alpha:lora:4", "eager", 60),
        (FLUX, "eager", 90),
        ("pixart-alpha:full:4", "graphs", 110),
        ("pixart-alpha:lora:4", "compiled", 100),
        ("sd15:lora:4", "eager", 60),
        ("sd15:lora:4", "compiled", 100),
        ("pixart-alpha:lora:4", "graphs", 110),
        ("sdxl:lora:2", "graphs", 150),
        ("sd15:lora:4", "graphs", 110),
        (FLUX, "compiled", 150),
    ]
    found = [Variant(case, how, WAYS[how], limit=limit) for case, how, limit in order]
    free = Variant("pixart-alpha:full:4", "eager, not deterministic", {**WAYS["eager"], "deterministic": False})
    recomputed = {"recompute_generator": True, "decode_checkpointing": True}
    small = Variant("sdxl:lora:2", "eager, recomputed", {**WAYS["eager"], **recomputed}, limit=80)
    return [found[0], free, *found[1:5], small, *found[5:]]


def bisection() -> list[Variant]:
    """Runs of Flux that tell causes of an illegal memory access apart; each changes one thing."""
    settings = WAYS["eager"]
    changes: list[tuple[str, dict[str, Any]]] = [
        ("CUDA_LAUNCH_BLOCKING=1", {"environment": {"CUDA_LAUNCH_BLOCKING": "1"}}),
        ("not deterministic", {"settings": {**settings, "deterministic": False}}),
        ("plain attention", {"attention": "math"}),
        ("flash attention", {"attention": "flash"}),
        ("attention without cuDNN's", {"attention": "flash,efficient,math"}),
        ("whole graphs", {"case": "flux:lora:1"}),
        ("no cached memory", {"environment": {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}}),
        ("expandable segments", {"environment": {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}}),
        ("frozen weights in fp16", {"settings": {**settings, "frozen_precision": "fp16"}}),
    ]
    plain: dict[str, Any] = {"case": FLUX, "settings": settings, "limit": 60.0}
    return [Variant(**{**plain, "how": how, **change}) for how, change in changes]


def measured(variant: Variant, steps: int, limit: float, work: Path, dry: bool) -> dict[str, Any]:
    """The variant's row, from a fresh interpreter that is ended at its limit; what it had written by then counts.

    Args:
        variant: what is run.
        steps: measured ones.
        limit: seconds.
        work: folder for what is made on the way.
        dry: on tiny networks, on the CPU.
    """
    target = work / "row.json"
    target.unlink(missing_ok=True)
    words = {"case": variant.case, "settings": dict(variant.settings), "attention": variant.attention}
    command = [sys.executable, str(HERE / "run.py"), "--one", json.dumps(words), "--steps", str(steps)]
    command += ["--work", str(work), "--results", str(target), *(["--dry"] if dry else [])]
    started = time.perf_counter()
    try:
        environment = {**os.environ, **variant.environment}
        done = subprocess.run(command, timeout=limit, capture_output=True, text=True, env=environment, check=False)
        words_of_error, code = done.stderr, done.returncode
    except subprocess.TimeoutExpired:
        words_of_error, code = f"ended after {limit:.0f} s", 124
    row: dict[str, Any] = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    if code:
        row.setdefault("failed", last_line(words_of_error) or f"ended with {code}")
    own = {"name": variant.name, "case": variant.case, "how": variant.how, "settings": dict(variant.settings)}
    if variant.environment or variant.attention:
        own |= {"environment": dict(variant.environment), "attention": variant.attention}
    if dry:
        own["dry"] = True
    return {**own, **row, "wall": time.perf_counter() - started}


def last_line(text: str) -> str:
    """The last line that is not empty."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def settings_here(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that this version has."""
    return {name: value for name, value in settings.items() if name in TrainConfig.model_fields}


def allow_attention(kernels: str) -> None:
    """Allow these of torch's attention kernels alone: `flash`, `efficient`, `cudnn`, `math`."""
    import torch

    chosen: Sequence[str] = kernels.split(",")
    torch.backends.cuda.enable_flash_sdp("flash" in chosen)
    torch.backends.cuda.enable_mem_efficient_sdp("efficient" in chosen)
    torch.backends.cuda.enable_cudnn_sdp("cudnn" in chosen)
    torch.backends.cuda.enable_math_sdp("math" in chosen)
