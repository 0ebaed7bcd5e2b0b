"""Rebuild every weight of the emoji world from the raw images: `python -m dipp_emoji.recipe --work FOLDER`.

Stages run in order; a finished stage is recorded in `FOLDER/record.json` and skipped when the command is given again,
and the long ones go on from their newest checkpoint. The last stage puts half-precision copies where the plugin loads
them.

`--take vae reference` begins with what the plugin has of these stages, as though they were done here, with what
`record.json` says of them: so a stage can be made anew on a machine that has none of the others' folders.
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

from dipp_toolkit.errors import RequestError
from dipp_toolkit.utils.atomic import write_text

from .. import DISTIL, UNET_READOUT, WEIGHTS
from .clip import train_clip
from .halve import copy_in_half
from .images import build_sheet, find_package
from .judge import train_judge
from .pixart import PixArt
from .preference import train_preference
from .reference import Architecture, ReferenceTraining, train_reference
from .samples import make_samples
from .unet import StableDiffusion
from .vae import build_latents, train_vae

RECORD = Path(__file__).parent / "record.json"
SHEET = Path(__file__).parents[1] / "assets" / "noto-sheet.png"
REFERENCE_STEPS = 3300
UNET_STEPS = 3000
FASTER = {"learning_rate": 2.5e-4, "assistant_learning_rate": 5e-4}
REFINE: tuple[dict[str, Any], ...] = (
    {"steps": 1200, "guidance": 1.5},
    {"steps": 200, "guidance": 1.5, "assistant_rounds": 3} | FASTER,
    {"steps": 200, "guidance": 1.0, "assistant_rounds": 3} | FASTER,
    {"steps": 200, "guidance": 1.0, "assistant_rounds": 3, "ema": 0.99, "cooldown": 180} | FASTER,
    {"steps": 1150, "guidance": 1.5, "assistant_rounds": 2, "cooldown": 300} | FASTER,
)
"""What the longer distillation changes, phase by phase: see docs/results/emoji-world.md for what each one did."""

UNET_FIRST: dict[str, Any] = {"steps": 512, "guidance": 3.0}
UNET_REFINE: tuple[dict[str, Any], ...] = (
    {"steps": 200, "guidance": 2.0},
    {"steps": 350, "guidance": 1.5, "cooldown": 200},
    {"steps": 450, "guidance": 2.0, "cooldown": 225},
)
"""Of the UNet: its reference is at its best under guidance 3, where the DiT's is at 1.5."""


def images(work: Path) -> dict[str, Any]:
    """The sprite sheet, from the npm package."""
    build_sheet(find_package(work), SHEET)
    return {"package": find_package(work).name}


def vae(work: Path) -> dict[str, Any]:
    """The tiny autoencoder."""
    return train_vae(work / "vae", steps=2400)


def _reference(work: Path, name: str, architecture: Architecture, **settings: Any) -> dict[str, Any]:
    """One training of a reference in `work / name`, begun or gone on with."""
    from diffusers import AutoencoderTiny

    decoder = AutoencoderTiny.from_pretrained(work / "vae")
    training = ReferenceTraining(architecture, build_latents(decoder, jitters=32), **settings)
    for step, loss, seconds in train_reference(training, work / f"{name}-checkpoints"):
        print(f"{name} {step:5d} loss {loss:.4f} {seconds:.0f}s", flush=True)
    training.pipeline(decoder).save_pretrained(work / name)
    return {"steps": training.step, "batch": training.batch}


def reference(work: Path) -> dict[str, Any]:
    """The multi-step reference, a DiT."""
    return _reference(work, "reference", PixArt(), steps=REFERENCE_STEPS, batch=64, rates=(2e-3, 1e-3))


def unet_reference(work: Path) -> dict[str, Any]:
    """The multi-step reference that is a UNet."""
    return _reference(work, "unet-reference", StableDiffusion(), steps=UNET_STEPS, batch=32, rates=(6e-3, 1.5e-3))


def clip(work: Path) -> dict[str, Any]:
    """The small CLIP."""
    return train_clip(work / "clip")


def _distillation(work: Path, name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """One run of the toolkit's own distillation in `work / name`, begun or gone on with; returns its summary."""
    from dipp_toolkit import TrainConfig, train

    run = work / name
    settings = DISTIL | {"judge": None, "rewards": {}, "eval_count": 32} | changes
    return train(TrainConfig(**settings, out=run, resume=run.is_dir())).summary


def _refinement(
    work: Path, prefix: str, phases: tuple[dict[str, Any], ...], changes: dict[str, Any]
) -> list[dict[str, Any]]:
    """A distilled generator distilled further, each phase from where the last one ended; their summaries."""
    names = [f"{prefix}distil", *(f"{prefix}refine-{number}" for number in range(len(phases)))]
    return [
        _distillation(work, name, {"generator": str(work / before), "ema": 0.995} | changes | phase)
        for (before, name), phase in zip(pairwise(names), phases, strict=True)
    ]


def _costs(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "training_seconds": [summary["seconds"] for summary in summaries],
        "steps": sum(summary["steps"] for summary in summaries),
    }


def distil(work: Path) -> dict[str, Any]:
    """The one-step generator, by the toolkit's own distillation."""
    return _costs([_distillation(work, "distil", {"reference": str(work / "reference")})])


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
    """The one-step generator distilled further, in phases."""
    return _costs(_refinement(work, "", REFINE, {"reference": str(work / "reference")}))


def unet_distil(work: Path) -> dict[str, Any]:
    """The one-step generator that is a UNet, read out where Stable Diffusion 1.5's is."""
    settings = {"reference": str(work / "unet-reference"), "assistant_rounds": 2} | FASTER
    first = _distillation(work, "unet-distil", settings | UNET_READOUT | UNET_FIRST)
    # A run's own folder says where it is read out.
    return _costs([first, *_refinement(work, "unet-", UNET_REFINE, settings)])


def installed(work: Path) -> dict[str, Path]:
    """Where each folder of the plugin's weights is made."""
    sources = {
        "onestep": work / f"refine-{len(REFINE) - 1}" / "final",
        "unet-onestep": work / f"unet-refine-{len(UNET_REFINE) - 1}" / "final",
    }
    return sources | {name: work / name for name in ("reference", "unet-reference", "clip", "preference", "judge")}


def install(work: Path) -> dict[str, Any]:
    """Half-precision copies of all weights into the plugin."""
    sizes = {name: copy_in_half(source, WEIGHTS / name) for name, source in installed(work).items()}
    return {"bytes": sizes, "total_bytes": sum(sizes.values())}


STAGES: dict[str, Callable[[Path], dict[str, Any]]] = {
    stage.__name__: stage
    for stage in (
        images, vae, reference, clip, distil, samples, preference, judge, refine, unet_reference, unet_distil, install,
    )
}  # fmt: skip
TAKEN: dict[str, dict[str, str]] = {
    "vae": {"vae": "reference/vae"},
    "distil": {},
    "refine": {f"refine-{len(REFINE) - 1}/final": "onestep"},
    "unet_distil": {f"unet-refine-{len(UNET_REFINE) - 1}/final": "unet-onestep"},
    "unet_reference": {"unet-reference": "unet-reference"},
} | {name: {name: name} for name in ("reference", "clip", "preference", "judge")}
"""Which folders a stage makes, and which of the plugin's weights they are in half precision. `distil` alone has no
weights there, as `refine` went on from them; `images` and `samples` cannot be taken."""


def take(work: Path, names: list[str], record: dict[str, Any]) -> None:
    """Begin with what the plugin has of these stages, and with what its record says of them.

    Raises:
        RequestError: the plugin has no such weights.
    """
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    for name in names:
        for target, source in TAKEN[name].items():
            if not (WEIGHTS / source).is_dir():
                raise RequestError(f"There are no weights of stage '{name}' in {WEIGHTS / source}; leave it out.")
            shutil.copytree(WEIGHTS / source, work / target, dirs_exist_ok=True)
        record[name] = recorded.get(name, {}) | {"taken": True}


def run_stages(work: Path, names: list[str], record: dict[str, Any], threads: int) -> None:
    """Run those that are not done, each recorded in `work/record.json` as it ends."""
    for name in names:
        if name in record:
            print(f"{name}: done before", flush=True)
            continue
        print(f"{name}: {STAGES[name].__doc__}", flush=True)
        started = time.perf_counter()
        measured = STAGES[name](work)
        record[name] = {"wall_seconds": round(time.perf_counter() - started, 1), "threads": threads} | measured
        write_text(work / "record.json", json.dumps(record, indent=2) + "\n")
        print(f"{name}: {json.dumps(record[name])}", flush=True)
    if set(STAGES) <= set(record):
        shutil.copy(work / "record.json", RECORD)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dipp_emoji.recipe", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for checkpoints, intermediate weights and the record"
    )
    parser.add_argument("--only", choices=list(STAGES), nargs="+", default=list(STAGES), help="run these stages alone")
    parser.add_argument(
        "--take", choices=list(TAKEN), nargs="+", default=[], help="begin with the plugin's weights of these stages"
    )
    parser.add_argument(
        "--again", choices=list(STAGES), nargs="+", default=[], help="forget that these stages were done"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    path = arguments.work / "record.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in arguments.again:
        record.pop(name, None)
    try:
        take(arguments.work, [name for name in arguments.take if name not in record], record)
    except RequestError as error:
        parser.error(str(error))
    run_stages(arguments.work, arguments.only, record, arguments.threads)


if __name__ == "__main__":
    main()
