"""A floor under a reward that the others would drop, on the emoji world.

    python benchmarks/floors/run.py --seeds 3 --steps 160 --work runs/floors

`emoji-onestep` is aligned with `colourfulness` alone, hard enough that its agreement with the caption, `emoji-clip`,
falls; then again with a floor under `emoji-clip`. Reported are means over the batches of the last quarter of the run,
and how many of those batches lie beneath the floor. Finished runs are not run again. Writes results.json, results.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

from dipp_toolkit import TrainConfig, train
from dipp_toolkit.config import make_config
from dipp_toolkit.utils.jsonl import whole_rows

HERE = Path(__file__).parent
TRAINED, HELD = "colourfulness", "emoji-clip"


def settings(floor: float | None, seed: int, steps: int, scale: float, out: Path) -> TrainConfig:
    """One run's settings; without a floor the held reward is only watched."""
    return make_config(
        {
            "generator": "emoji-onestep", "steps": steps, "seed": seed, "out": out, "reward_scale": scale,
            "guidance": 1.5, "cooldown": 75,
            "rewards": {TRAINED: 1.0} | ({HELD: 0.0} if floor is None else {}),
            "floors": {} if floor is None else {HELD: floor}, "eval_count": 64, "reference_steps": 1,
            "sample_every": steps, "resume": (out / "config.yaml").is_file(),
        }
    )  # fmt: skip


def run(floor: float | None, level: float, seed: int, steps: int, scale: float, work: Path) -> dict[str, Any]:
    """Train one, or take what an earlier call has trained; the numbers of its last quarter."""
    out = work / f"{'without' if floor is None else 'with'}-{seed}"
    if not (out / "summary.json").is_file():
        train(settings(floor, seed, steps, scale, out))
    rows = whole_rows(out / "metrics.jsonl")
    late = rows[-len(rows) // 4 :]
    held = [row[f"reward/{HELD}"] for row in late]
    return {
        "start": rows[0][f"reward/{HELD}"],
        "held": statistics.mean(held),
        "lowest": min(held),
        "beneath": sum(score < level for score in held) / len(held),
        "trained_start": rows[0][f"reward/{TRAINED}"],
        "trained": statistics.mean(row[f"reward/{TRAINED}"] for row in late),
        "multiplier": late[-1].get(f"multiplier/reward/{HELD}"),
        "exported": json.loads((out / "summary.json").read_text())["rewards"][HELD]["after"],
    }


def table(results: dict[str, list[dict[str, Any]]], level: float, note: str) -> str:
    """The results as Markdown."""
    lines = [
        f"| | seed | `{HELD}`, start | last quarter | lowest batch | batches beneath {level:g} | exported, held-out "
        f"prompts | `{TRAINED}`, start | last quarter |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in results.items():
        for seed, run in enumerate(runs):
            exported = "{mean:.1f} [{low:.1f}, {high:.1f}]".format(**run["exported"])
            lines.append(
                f"| {name} | {seed} | {run['start']:.1f} | {run['held']:.1f} | {run['lowest']:.1f} | "
                f"{run['beneath']:.0%} | {exported} | {run['trained_start']:.3f} | {run['trained']:.3f} |"
            )
    return "\n".join(lines) + f"\n\n{note}\n"


def main() -> None:
    """Train and measure what has not been, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--scale", type=float, default=10000.0, help="reward_scale")
    parser.add_argument("--floor", type=float, default=88.0)
    parser.add_argument("--work", type=Path, default=Path("runs/floors"))
    words = parser.parse_args()
    results = {
        name: [run(floor, words.floor, seed, words.steps, words.scale, words.work) for seed in range(words.seeds)]
        for name, floor in (("without", None), (f"floor {words.floor:g}", words.floor))
    }
    note = (
        f"{words.steps} steps of 32 samples, `reward_scale={words.scale:g}`. torch {torch.__version__}, CPU. The "
        "metrics are of the weights as they are trained, the exported ones are their average."
    )
    text = table(results, words.floor, note)
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (HERE / "results.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
