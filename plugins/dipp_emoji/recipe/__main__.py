"""Rebuild every weight of the emoji world from the raw images: `python -m dipp_emoji.recipe --work FOLDER`.

Stages run in order; a finished stage is recorded in `FOLDER/record.json` and skipped when the command is given again,
and the long ones go on from their newest checkpoint. The last stage puts half-precision copies where the plugin loads
them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from dipp_toolkit.utils.atomic import write_text

from .. import DISTIL, WEIGHTS
from .clip import train_clip
from .halve import copy_in_half
from .images import build_sheet, find_package
from .judge import train_judge
from .preference import train_preference
from .reference import ReferenceTraining, train_reference
from .samples import make_samples
from .vae import build_latents, train_vae

SHEET = Path(__file__).parents[1] / "assets" / "noto-sheet.png"
REFERENCE_STEPS = 3300
FASTER = {"learning_rate": 2.5e-4, "assistant_learning_rate": 5e-4}
REFINE: tuple[dict[str, Any], ...] = (
    {"steps": 1200, "guidance": 1.5},
    {"steps": 200, "guidance": 1.5, "assistant_rounds": 3} | FASTER,
    {"steps": 200, "guidance": 1.0, "assistant_rounds": 3} | FASTER,
    {"steps": 200, "guidance": 1.0, "assistant_rounds": 3, "ema": 0.99, "cooldown": 180} | FASTER,
    {"steps": 1150, "guidance": 1.5, "assistant_rounds": 2, "cooldown": 300} | FASTER,
)
"""What the longer distillation changes, phase by phase: see docs/results/emoji-world.md for what each one did."""


def images(work: Path) -> dict[str, Any]:
    """The sprite sheet, from the npm package."""
    build_sheet(find_package(work), SHEET)
    return {"package": find_package(work).name}


def vae(work: Path) -> dict[str, Any]:
    """The tiny autoencoder."""
    return train_vae(work / "vae", steps=2400)


def reference(work: Path) -> dict[str, Any]:
    """The multi-step reference."""
    from diffusers import AutoencoderTiny

    decoder = AutoencoderTiny.from_pretrained(work / "vae")
    training = ReferenceTraining(build_latents(decoder, jitters=32), REFERENCE_STEPS, batch=64, rates=(2e-3, 1e-3))
    for step, loss, seconds in train_reference(training, work / "reference-checkpoints"):
        print(f"reference {step:5d} loss {loss:.4f} {seconds:.0f}s", flush=True)
    training.pipeline(decoder).save_pretrained(work / "reference")
    return {"steps": training.step, "batch": training.batch}


def clip(work: Path) -> dict[str, Any]:
    """The small CLIP."""
    return train_clip(work / "clip")


def _distillation(work: Path, name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """One run of the toolkit's own distillation in `work / name`, begun or gone on with; returns its summary."""
    from dipp_toolkit import TrainConfig, train

    run = work / name
    settings = DISTIL | {"reference": str(work / "reference"), "judge": None, "rewards": {}, "eval_count": 32} | changes
    return train(TrainConfig(**settings, out=run, resume=run.is_dir())).summary


def distil(work: Path) -> dict[str, Any]:
    """The one-step generator, by the toolkit's own distillation."""
    summary = _distillation(work, "distil", {})
    return {"training_seconds": summary["seconds"], "steps": summary["steps"]}


def samples(work: Path) -> dict[str, Any]:
    """Images of the reference and of the generator, as negatives for the preferences."""
    return make_samples(work / "samples", reference=work / "reference", generator=work / "distil" / "final")


def preference(work: Path) -> dict[str, Any]:
    """The preference reward."""
    return train_preference(work / "preference", samples=work / "samples", vae=work / "vae")


def judge(work: Path) -> dict[str, Any]:
    """The independent judge."""
    return train_judge(work / "judge", samples=work / "samples", vae=work / "vae")


def refine(work: Path) -> dict[str, Any]:
    """The one-step generator distilled further, each phase from where the last one ended."""
    names = ["distil", *(f"refine-{number}" for number in range(len(REFINE)))]
    summaries = [
        _distillation(work, name, {"generator": str(work / before), "ema": 0.995} | phase)
        for (before, name), phase in zip(pairwise(names), REFINE, strict=True)
    ]
    return {
        "training_seconds": [summary["seconds"] for summary in summaries],
        "steps": sum(summary["steps"] for summary in summaries),
    }


def install(work: Path) -> dict[str, Any]:
    """Half-precision copies of all weights into the plugin."""
    sources = {"onestep": work / f"refine-{len(REFINE) - 1}" / "final"} | {
        name: work / name for name in ("reference", "clip", "preference", "judge")
    }
    sizes = {name: copy_in_half(source, WEIGHTS / name) for name, source in sources.items()}
    return {"bytes": sizes, "total_bytes": sum(sizes.values())}


STAGES: dict[str, Callable[[Path], dict[str, Any]]] = {
    stage.__name__: stage
    for stage in (images, vae, reference, clip, distil, samples, preference, judge, refine, install)
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dipp_emoji.recipe", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for checkpoints, intermediate weights and the record"
    )
    parser.add_argument("--only", choices=list(STAGES), nargs="+", default=list(STAGES), help="run these stages alone")
    parser.add_argument(
        "--again", choices=list(STAGES), nargs="+", default=[], help="forget that these stages were done"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    path = arguments.work / "record.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in arguments.again:
        record.pop(name, None)
    for name in arguments.only:
        if name in record:
            print(f"{name}: done before", flush=True)
            continue
        print(f"{name}: {STAGES[name].__doc__}", flush=True)
        started = time.perf_counter()
        measured = STAGES[name](arguments.work)
        record[name] = {
            "wall_seconds": round(time.perf_counter() - started, 1),
            "threads": arguments.threads,
        } | measured
        write_text(path, json.dumps(record, indent=2) + "\n")
        print(f"{name}: {json.dumps(record[name])}", flush=True)
    if set(STAGES) <= set(record):
        shutil.copy(path, Path(__file__).parent / "record.json")


if __name__ == "__main__":
    main()
