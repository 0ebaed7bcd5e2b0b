"""The few-step RL terms at equal time on the emoji world, and rewards during a distillation or after it.

    OMP_NUM_THREADS=1 python benchmarks/few_step_rl/run.py --work runs/few-step-rl

First part: from the shipped one-step generator each term aligns for as long as 40 updates of DI++ take; where a term's
rewards have a pull, it is the same. Second part: from the reference's own network, for as long as 120 updates with
rewards take, distillation alone, half distillation and half alignment, and rewards from the start, plainly and as DMDR
has it. Time is the processor's, one thread, of updates measured turn by turn. All are judged by `emoji-judge`, which
none was trained on, on all 352 held-out prompts with two noises each, the same for all. One seed: intervals are over
prompts, and a difference between rows may be the seed's. About half an hour of one core. Finished runs and the measured
times are kept: run it again after an interruption. Writes `results.json` and `results.md`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# The time of an update must not depend on how many threads it may have.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks._shared.measuring import print_results, ran_on, write_results
from benchmarks.family_study.pace import turn_by_turn
from benchmarks.few_step_rl.ways import ALIGNED, DISTILLED, HALF, PACE, UPDATES, WAYS, Way
from dipp_toolkit import train
from dipp_toolkit.config import make_config
from dipp_toolkit.utils.atomic import write_text

HERE = Path(__file__).parent
PARTS: dict[str, dict[str, Any]] = {"aligned": ALIGNED, "distilled": DISTILLED}
HEADS = {
    "aligned": "**From the shipped one-step generator**",
    "distilled": "**From the reference's own network: rewards during the distillation or after it**",
}


def with_half(settings: Mapping[str, Any], updates: int) -> dict[str, Any]:
    """Settings in which `HALF` is half of the updates."""
    return {
        name: with_half(value, updates) if isinstance(value, Mapping) else updates // 2 if value == HALF else value
        for name, value in settings.items()
    }


def seconds_per_update(work: Path) -> dict[str, list[float]]:
    """Processor seconds of an update of every phase, by part and way; measured once."""
    path = work / "pace.json"
    if not path.is_file():
        found: dict[str, list[float]] = {}
        for part, base in PARTS.items():
            phases = {(way.name, number): phase for way in WAYS[part] for number, phase in enumerate(way.phases)}
            alike = {json.dumps(phase): {**base, **with_half(phase, 60)} for phase in phases.values()}
            seconds = turn_by_turn(alike, work, time.process_time)
            for (name, _), phase in phases.items():
                found.setdefault(name, []).append(seconds[json.dumps(phase)])
        work.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(found, indent=2) + "\n")
    pace: dict[str, list[float]] = json.loads(path.read_text(encoding="utf-8"))
    return pace


def updates_of(part: str, pace: Mapping[str, Sequence[float]]) -> dict[str, list[int]]:
    """Updates of each phase of every way: all phases of a way have the same time, and all ways of a part."""
    total = pace[PACE[part]][0] * UPDATES[part]
    return {
        way.name: [max(round(total / len(way.phases) / seconds), 1) for seconds in pace[way.name]] for way in WAYS[part]
    }


def trained(part: str, way: Way, updates: Sequence[int], work: Path) -> dict[str, Any]:
    """Train a way's phases, unless that is done; what the last one ended with, and what the first began with."""
    summaries: list[dict[str, Any]] = []
    number = WAYS[part].index(way)
    for index, (phase, steps) in enumerate(zip(way.phases, updates, strict=True)):
        out = work / f"{part}-{number}-{index}"
        begins = {} if index == 0 else {"generator": str(work / f"{part}-{number}-{index - 1}"), "reference": None}
        # A network that begins as the reference's has an assistant that knows nothing of its samples.
        warm = {"assistant_warmup": 20} if part == "distilled" and index == 0 else {}
        settings = {**PARTS[part], **warm, **with_half(phase, steps), **begins}
        settings = {name: value for name, value in settings.items() if value is not None}
        if not (out / "summary.json").is_file():
            print(f"{part}: {way.name}, {steps} updates", flush=True)
            resume = (out / "config.yaml").is_file()
            train(make_config({**settings, "steps": steps, "seed": 0, "out": out, "resume": resume}))
            gc.collect()
        summaries.append(json.loads((out / "summary.json").read_text(encoding="utf-8")))
    first, last = summaries[0], summaries[-1]
    rewards = {name: reward["after"]["mean"] for name, reward in last["rewards"].items()}
    return {
        "updates": list(updates),
        "judge": last["judge"]["after"],
        "before": first["judge"]["before"],
        "rewards": rewards,
        "diversity": last["diversity"]["after"],
    }


def interval(found: Mapping[str, float]) -> str:
    """A mean with its 95 % interval."""
    return f"{found['mean']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def page(numbers: Mapping[str, Any]) -> str:
    """The tables."""
    parts = []
    for part, head in HEADS.items():
        rows = numbers["parts"].get(part, {})
        lines = [head, "", "| way | updates | judge (95 % interval) | emoji-preference (trained) | diversity |"]
        lines.append("|---|---|---|---|---|")
        for name, row in rows.items():
            counts = " and ".join(map(str, row["updates"]))
            preference = row["rewards"].get("emoji-preference")
            trained_on = "-" if preference is None else f"{preference:.2f}"
            lines.append(f"| {name} | {counts} | {interval(row['judge'])} | {trained_on} | {row['diversity']:.3f} |")
        if rows:
            lines.append(f"\nThe judge before any update: {interval(next(iter(rows.values()))['before'])}.")
        parts.append("\n".join(lines))
    seconds = ", ".join(
        f"{name} {' and '.join(f'{each:.2f}' for each in pace)}" for name, pace in numbers["seconds"].items()
    )
    return "\n\n".join([*parts, f"Processor seconds an update, one thread: {seconds}.", numbers["ran_on"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/few-step-rl"), help="folder of the runs")
    parser.add_argument("--part", choices=[*PARTS], nargs="+", default=[*PARTS], help="which parts are trained")
    words = parser.parse_args()
    torch.set_num_threads(1)
    pace = seconds_per_update(words.work)
    recorded = HERE / "results.json"
    parts = json.loads(recorded.read_text(encoding="utf-8"))["parts"] if recorded.is_file() else {}
    for part in words.part:
        counts = updates_of(part, pace)
        parts[part] = {way.name: trained(part, way, counts[way.name], words.work) for way in WAYS[part]}
    numbers = {
        "parts": {part: parts[part] for part in PARTS if part in parts},
        "seconds": pace,
        "ran_on": f"One seed. Ran on {ran_on(torch.device('cpu'))}",
    }
    write_results(HERE, numbers, page(numbers))
    print_results(HERE)


if __name__ == "__main__":
    main()
