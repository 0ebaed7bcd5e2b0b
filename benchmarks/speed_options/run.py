"""Do the settings that save time change what alignment reaches? The emoji world, with each of them beside none.

    python benchmarks/speed_options/run.py --seeds 3 --work runs/speed-options

Aligns `emoji-onestep` with the settings its plugin recommends, once for each seed and option, in float32 unless the
option says otherwise, then judges held-out prompts with `emoji-judge`, which nothing here was trained on. An option is
compared with `none` prompt by prompt, over all seeds. Trains 15 runs of one thread (about half an hour; two at a
time with `--processes 2`). Finished runs are kept. Writes `results.json` and `results.md` beside this file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# One thread a run: processor time is then the run's own, whoever else is at work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks._shared.emoji_columns import features_of, judge_column, one_step_column, real_images
from benchmarks._shared.measuring import print_results, ran_on, write_results
from dipp_emoji.judge import EmojiJudge
from dipp_toolkit import TrainConfig, load_generator, load_prompts, load_reference, train
from dipp_toolkit.evaluation.intervals import Interval, effect_size, matters, mean_interval, paired_interval
from dipp_toolkit.protocols import texts

HERE = Path(__file__).parent
QUIET: dict[str, Any] = {
    "monitor_every": 0,
    "diagnose_every": 0,
    "sample_every": 10**6,
    "eval_count": 8,
    "reference_steps": 2,
    "precision": "fp32",
}
"""Nothing is measured on the way."""
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "bf16": {"precision": "bf16"},
    "compile": {"compile": "on"},
    "reuse_samples": {"reuse_samples": True},
    "all three": {"precision": "bf16", "compile": "on", "reuse_samples": True},
}


def train_run(option: str, seed: int, folder: Path, more: dict[str, Any]) -> None:
    """One alignment, unless it is finished."""
    if not (folder / "summary.json").exists():
        settings = {**QUIET, **OPTIONS[option], **more, "seed": seed, "out": folder}
        train(TrainConfig(generator="emoji-onestep", resume=(folder / "config.yaml").exists(), **settings))


def seconds_per_update(folder: Path) -> float:
    """Median seconds an update of a run, from its metrics."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    times = torch.tensor([row["seconds"] for row in rows]).diff()
    return times.median().item()


def judged(folders: Sequence[Path]) -> tuple[torch.Tensor, list[float]]:
    """The judge's scores, `(prompts, runs * noises)`, and each run's Frechet distance to real compositions."""
    judge, reference = EmojiJudge(), load_reference("emoji-reference")
    prompts = texts(load_prompts("emoji-heldout"))
    condition = reference.encode(prompts)
    real = features_of(judge, real_images(seed=1).flatten(0, 1))
    columns = [
        judge_column(judge, one_step_column(load_generator(str(folder)), reference, condition), prompts, real)
        for folder in folders
    ]
    return torch.cat([column.scores for column in columns], dim=1), [column.frechet for column in columns]


def measured(work: Path, seeds: int) -> dict[str, Any]:
    """Every option's row."""
    rows: dict[str, Any] = {}
    plain = torch.zeros(0)
    for option, settings in OPTIONS.items():
        folders = [work / f"{option.replace(' ', '-')}-{seed}" for seed in range(seeds)]
        scores, distances = judged(folders)
        plain = scores if option == "none" else plain
        rows[option] = {
            "settings": settings,
            "judge": mean_interval(scores).as_dict(),
            "runs": scores.reshape(len(scores), seeds, -1).mean((0, 2)).tolist(),
            "difference": None if option == "none" else paired_interval(plain, scores).as_dict(),
            "effect": None if option == "none" else effect_size(plain, scores),
            "frechet": distances,
            "seconds": [seconds_per_update(folder) for folder in folders],
        }
    return rows


def page(rows: dict[str, Any], about: str, seeds: int, steps: int) -> str:
    """The results as Markdown."""
    inside = Interval(**rows["none"]["judge"])
    lines = [
        "# Settings that save time, and what alignment reaches with them",
        "",
        about,
        "",
        "| option | judge | lowest and highest run | difference to none | size of it | Frechet distance | "
        "mean inside the interval of none |",
        "|---|---|---|---|---|---|---|",
    ]
    for option, row in rows.items():
        judge, runs, difference = row["judge"], row["runs"], row["difference"]
        apart = f"{difference['mean']:+.2f} [{difference['low']:.2f}, {difference['high']:.2f}]" if difference else "-"
        size = f"{row['effect']:+.2f}{' (matters)' if matters(row['effect']) else ''}" if difference else "-"
        lines.append(
            f"| {option} | {judge['mean']:.2f} [{judge['low']:.2f}, {judge['high']:.2f}] | {min(runs):.2f}, "
            f"{max(runs):.2f} | {apart} | {size} | {min(row['frechet']):.2f} to {max(row['frechet']):.2f} | "
            f"{'yes' if inside.contains(judge['mean']) else 'no'} |"
        )
    lines += [
        "",
        f"{steps} generator updates, seeds 0 to {seeds - 1}. Judge: mean over runs with a 95 % interval over held-out "
        "prompts, 2 noises each; the difference prompt by prompt, and its size in standard deviations over prompts.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train, judge, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1, help="runs trained at a time")
    parser.add_argument("--work", type=Path, default=Path("runs/speed-options"), help="folder for the runs")
    parser.add_argument("--steps", type=int, default=None, help="generator updates; as recommended by default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    more = {} if arguments.steps is None else {"steps": arguments.steps}
    jobs = [
        (option, seed, arguments.work / f"{option.replace(' ', '-')}-{seed}", more)
        for seed in range(arguments.seeds)
        for option in OPTIONS
    ]
    # A fresh process for each run: what one compiled or cached is not there for the next.
    with multiprocessing.get_context("spawn").Pool(arguments.processes, maxtasksperchild=1) as pool:
        pool.starmap(train_run, jobs, chunksize=1)
    rows = measured(arguments.work, arguments.seeds)
    about = ran_on(torch.device("cpu"))
    steps = len((arguments.work / "none-0" / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    numbers = {"ran_on": about, "seeds": arguments.seeds, "steps": steps, "options": rows}
    write_results(HERE, numbers, page(rows, about, arguments.seeds, steps))
    print_results(HERE)


if __name__ == "__main__":
    main()
