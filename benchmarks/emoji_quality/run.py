"""Quality of an emoji world: real compositions, the reference, the distilled generator and the aligned ones.

    python benchmarks/emoji_quality/run.py --seeds 3 --work runs/emoji-quality
    python benchmarks/emoji_quality/run.py --seeds 3 --world emoji-unet

Aligns `WORLD-onestep` once for each seed with the settings its plugin recommends, then judges every column on the
held-out prompts with `emoji-judge`, which nothing here was trained on. The reference, `WORLD-reference`, has the
guidance that the judge likes best on training prompts. Alignments and images are kept below `--work` under what they
depend on, weights, prompts, noises and settings, so that a run that was stopped goes on and one world does not undo
another; where code that draws has changed, give another folder. Writes `results.json` (of other worlds
`results-WORLD.json`) and, from all of these, `results.md` beside this file; `--only-table` writes the latter alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks._shared.emoji_columns import NOISES, features_of, one_step_column, real_images
from benchmarks._shared.kept_images import KeptImages, kept_images
from benchmarks._shared.teacher import best_guidance, teacher_column, teacher_key
from benchmarks.emoji_quality.columns import Column
from benchmarks.emoji_quality.page import FIRST, page, read_sections, results_file
from dipp_emoji.judge import EmojiJudge
from dipp_toolkit import Condition, Generator, TrainConfig, load_generator, load_prompts, load_reference, train
from dipp_toolkit.evaluation.frechet import ReferenceFrechet
from dipp_toolkit.protocols import Reference, texts
from dipp_toolkit.training.run_state.start_record import pipeline_digest
from dipp_toolkit.training.setup.resolve import resolve
from dipp_toolkit.utils.atomic import write_text
from dipp_toolkit.utils.fingerprint import digest_of

HERE = Path(__file__).parent


@dataclass(frozen=True)
class World:
    """A world: the names of its reference and its generator, and where its work lies."""

    name: str
    reference: str
    generator: str
    work: Path

    @classmethod
    def named(cls, name: str, work: Path) -> World:
        """The world whose reference and generator have names that begin so."""
        return cls(name, f"{name}-reference", f"{name}-onestep", work / name)


def digest_of_model(model: Reference | Generator) -> str:
    """A digest of a reference's or a generator's pipeline folder."""
    return pipeline_digest(cast(Any, model).folder)


def aligned_runs(world: World, seeds: int) -> list[Path]:
    """A finished alignment for each seed, with the recommended settings; other settings or weights are another one."""
    weights = [digest_of_model(load_generator(world.generator)), digest_of_model(load_reference(world.reference))]
    folders = []
    for seed in range(seeds):
        config = TrainConfig(generator=world.generator, seed=seed)
        settings = resolve(config).model_dump(mode="json", exclude={"out", "resume"})
        folder = world.work / f"seed-{seed}-{digest_of([settings, weights])[:12]}"
        if not (folder / "summary.json").exists():
            train(config.model_copy(update={"out": folder, "resume": folder.is_dir()}))
        folders.append(folder)
    return folders


@dataclass(frozen=True)
class Stand:
    """What every column of a world is drawn with.

    Attributes:
        world: its names.
        reference: encodes prompts and decodes latents.
        prompts: the held-out ones.
        condition: the same, encoded.
    """

    world: World
    reference: Reference
    prompts: list[str]
    condition: Condition

    @classmethod
    def of(cls, world: World) -> Stand:
        """Load it."""
        reference, prompts = load_reference(world.reference), texts(load_prompts("emoji-heldout"))
        return cls(world, reference, prompts, reference.encode(prompts))

    def depends(self, **more: Any) -> dict[str, Any]:
        """What a column's images depend on; machine and code are left out."""
        return {"reference": digest_of_model(self.reference), "prompts": self.prompts, "noises": NOISES, **more}

    def teacher(self, steps: int, guidance: float) -> KeptImages:
        """The reference's images."""
        return kept_images(
            self.world.work / "images",
            "reference",
            self.depends(steps=steps, guidance=guidance),
            lambda: teacher_column(self.reference, self.condition, steps, guidance),
        )

    def generator(self, label: str, generator: Generator) -> KeptImages:
        """A generator's images."""
        read_out = [getattr(generator, name, "") for name in ("readout", "input_scale")]
        return kept_images(
            self.world.work / "images",
            label,
            self.depends(generator=digest_of_model(generator), read_out=read_out),
            lambda: one_step_column(generator, self.reference, self.condition),
        )


def measure_world(world: World, seeds: int, steps: int) -> dict[str, Any]:
    """All columns of a world, and what they were made with."""
    runs = aligned_runs(world, seeds)
    judge, stand = EmojiJudge(), Stand.of(world)
    real = ReferenceFrechet(features_of(judge, real_images(seed=1).flatten(0, 1)))

    def look(images: torch.Tensor) -> Column:
        return Column.of(judge, images, stand.prompts)

    guidance = searched(judge, stand)
    kept = stand.teacher(steps, guidance["guidance"])
    reference, teacher = look(kept.images), f"reference, {steps} steps, guidance {guidance['guidance']:g}"
    columns: dict[str, Any] = {
        "real compositions": look(real_images(seed=2)).numbers(real),
        teacher: reference.numbers(real)
        | {"evaluations": steps * (1 if guidance["guidance"] == 1 else 2), "milliseconds": kept.milliseconds},
    }
    generators = {"distilled, one step": ("distilled", world.generator)} | {
        f"aligned, one step, seed {seed}": (f"aligned-{seed}", str(folder)) for seed, folder in enumerate(runs)
    }
    for name, (label, source) in generators.items():
        kept = stand.generator(label, load_generator(source))
        column = look(kept.images)
        columns[name] = column.numbers(real) | {
            "evaluations": 1,
            "milliseconds": kept.milliseconds,
            "against_reference": column.against(reference, real),
        }
    return {
        "command": f"python benchmarks/emoji_quality/run.py --seeds {seeds}"
        + (f" --world {world.name}" if world.name != FIRST else ""),
        "machine": f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "prompts": len(stand.prompts),
        "images": len(stand.prompts) * NOISES,
        "frechet_floor": columns["real compositions"]["frechet"],
        "reference_guidance": guidance,
        "teacher": {"key": teacher_key(stand.reference, judge, stand.prompts, steps), "column": teacher},
        "alignment_seconds": [json.loads((folder / "summary.json").read_text())["seconds"] for folder in runs],
        "columns": columns,
    }


def searched(judge: EmojiJudge, stand: Stand) -> Mapping[str, Any]:
    """The search for the reference's best guidance; one that was finished is read."""
    key = teacher_key(stand.reference, judge, stand.prompts, 0)
    place = stand.world.work / f"guidance-{key[:12]}.json"
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, json.dumps(best_guidance(judge, stand.reference), indent=2) + "\n")
    return cast(Mapping[str, Any], json.loads(place.read_text(encoding="utf-8")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", nargs="+", default=[FIRST], help="worlds: emoji, emoji-unet")
    parser.add_argument("--seeds", type=int, default=3, help="alignments, seeds 0, 1, ...")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/emoji-quality"), help="folder for alignments and images"
    )
    parser.add_argument("--steps", type=int, default=50, help="sampling steps of the reference")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for results*.json and results.md")
    parser.add_argument(
        "--only-table", action="store_true", help="write results.md from the recorded numbers, and stop"
    )
    arguments = parser.parse_args()

    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in () if arguments.only_table else arguments.world:
        results = measure_world(World.named(name, arguments.work), arguments.seeds, arguments.steps)
        write_text(results_file(arguments.out, name), json.dumps(results, indent=2) + "\n")
    text = page(read_sections(arguments.out))
    write_text(arguments.out / "results.md", text)
    print(text)


if __name__ == "__main__":
    main()
