"""Quality of the emoji world: real compositions, the reference, the distilled generator and the aligned ones.

    python benchmarks/emoji_quality/run.py --seeds 3 --work runs/emoji-quality

Aligns `emoji-onestep` once for each seed with the settings its plugin recommends, then judges every column on the
held-out prompts with `emoji-judge`, which nothing here was trained on. Everything is resumed where it was stopped.
Writes `results.json` and `results.md` beside this file.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks._shared.emoji_columns import NOISES, features_of, judge_column, one_step_column, real_images, stored
from benchmarks._shared.teacher import best_guidance, teacher_column, teacher_key
from dipp_emoji.judge import EmojiJudge
from dipp_toolkit import TrainConfig, load_generator, load_prompts, load_reference, train
from dipp_toolkit.evaluation.diversity import seed_diversity
from dipp_toolkit.evaluation.intervals import mean_interval
from dipp_toolkit.models.sampling import generate_images, sample_reference
from dipp_toolkit.protocols import texts
from dipp_toolkit.utils.atomic import write_text

HERE = Path(__file__).parent


def measure(judge: EmojiJudge, images: torch.Tensor, prompts: list[str], real_features: torch.Tensor) -> dict[str, Any]:
    """Everything the table says about one column of images `(prompts, noises, 3, 64, 64)`, as 8-bit pixels."""
    judged = judge_column(judge, images, prompts, real_features)
    return {
        "naming": judged.naming,
        "preference": mean_interval(judged.scores).as_dict(),
        "frechet": judged.frechet,
        "diversity": seed_diversity(stored(images)),
    }


def milliseconds(make: Callable[[], object], images: int, repeats: int = 5) -> float:
    """Median milliseconds an image, at batch size `images`."""
    make()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        make()
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times) / images


def aligned_runs(seeds: int, work: Path) -> list[Path]:
    """A finished alignment for each seed, with the recommended settings."""
    folders = []
    for seed in range(seeds):
        folder = work / f"seed-{seed}"
        if not (folder / "summary.json").exists():
            train(TrainConfig(generator="emoji-onestep", seed=seed, out=folder, resume=folder.is_dir()))
        folders.append(folder)
    return folders


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| column | evaluations an image | judge names it | judge's preference (95 % interval) "
        "| Frechet distance | diversity | ms an image |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in results["columns"].items():
        preference = row["preference"]
        took = f"{row['milliseconds']:.1f}" if "milliseconds" in row else "-"
        lines.append(
            f"| {name} | {row.get('evaluations', '-')} | {100 * row['naming']:.1f} % | {preference['mean']:.2f} "
            f"({preference['low']:.2f} to {preference['high']:.2f}) | {row['frechet']:.2f} | {row['diversity']:.3f} "
            f"| {took} |"
        )
    lines += [
        "",
        "The first row's Frechet distance, real against real, is the floor. "
        f"{results['images']} images a column, {results['prompts']} held-out prompts, "
        f"{NOISES} noises each. Ran on {results['machine']}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="alignments, seeds 0, 1, ...")
    parser.add_argument("--work", type=Path, default=Path("runs/emoji-quality"), help="folder for the alignments")
    parser.add_argument("--steps", type=int, default=50, help="sampling steps of the reference")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for results.json and results.md")
    arguments = parser.parse_args()

    runs = aligned_runs(arguments.seeds, arguments.work)
    judge, reference, distilled = EmojiJudge(), load_reference("emoji-reference"), load_generator("emoji-onestep")
    prompts = texts(load_prompts("emoji-heldout"))
    condition = reference.encode(prompts)
    real, fresh = real_images(seed=1), real_images(seed=2)
    real_features = features_of(judge, real.flatten(0, 1))
    guidance = best_guidance(judge, reference, condition, prompts)
    columns = {"real compositions": measure(judge, fresh, prompts, real_features)}
    few = condition[:32]
    passes = arguments.steps * (1 if guidance["guidance"] == 1 else 2)
    teacher = f"reference, {arguments.steps} steps, guidance {guidance['guidance']:g}"
    multi = teacher_column(reference, condition, arguments.steps, guidance["guidance"])
    columns[teacher] = measure(judge, multi, prompts, real_features) | {
        "evaluations": passes,
        "milliseconds": milliseconds(
            lambda: sample_reference(reference, few, 0, arguments.steps, guidance["guidance"]), 32, repeats=1
        ),
    }
    generators = {"distilled, one step": distilled} | {
        f"aligned, one step, seed {k}": load_generator(str(folder)) for k, folder in enumerate(runs)
    }
    for name, generator in generators.items():
        columns[name] = measure(judge, one_step_column(generator, reference, condition), prompts, real_features) | {
            "evaluations": 1,
            "milliseconds": milliseconds(lambda generator=generator: generate_images(generator, reference, few, 0), 32),  # type: ignore[misc]
        }
    results = {
        "command": f"python benchmarks/emoji_quality/run.py --seeds {arguments.seeds}",
        "machine": f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "prompts": len(prompts),
        "images": len(prompts) * NOISES,
        "frechet_floor": columns["real compositions"]["frechet"],
        "reference_guidance": guidance,
        "teacher": {"key": teacher_key(reference, judge, prompts, arguments.steps), "column": teacher},
        "alignment_seconds": [json.loads((folder / "summary.json").read_text())["seconds"] for folder in runs],
        "columns": columns,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out / "results.json", json.dumps(results, indent=2) + "\n")
    write_text(arguments.out / "results.md", table(results))
    print(table(results))


if __name__ == "__main__":
    main()
