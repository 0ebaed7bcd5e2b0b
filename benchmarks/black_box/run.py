"""Black boxes against what a differentiable stand-in reaches, with as many samples of the generator.

    python benchmarks/black_box/run.py --seeds 3 --steps 120 --work runs/black-box

The reward is `jpeg`, minus the bits a pixel of the image's JPEG file. Aligned with it are copies of `emoji-onestep`: by
a differentiable stand-in (`stand_in.py`, a smooth count of the encoder's bits), by the surrogate, and by antithetic
smoothing. All take the same number of steps of 32 samples, and in all the reward's gradient is scaled to the same root
mean square (`balance=normalised`). Judged is the true file size on held-out prompts; `emoji-judge`, which nothing is
trained on, says what it costs in quality. Finished runs are not run again. Writes results.json and results.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

from dipp_toolkit import TrainConfig, load_reward, train
from dipp_toolkit.config import make_config
from dipp_toolkit.evaluation.comparison import Comparison, measure
from dipp_toolkit.utils.jsonl import whole_rows

HERE = Path(__file__).parent
METHODS: dict[str, dict[str, Any]] = {
    "differentiable stand-in": {"rewards": {f"{HERE / 'stand_in.py'}:JpegStandIn": 1.0}},
    "surrogate": {"rewards": {"jpeg": 1.0}, "black_box": "surrogate"},
    "smoothing": {"rewards": {"jpeg": 1.0}, "black_box": "smoothing"},
}


def settings(method: str, seed: int, steps: int, scale: float, out: Path) -> TrainConfig:
    """One run's settings."""
    common = {
        "generator": "emoji-onestep", "steps": steps, "seed": seed, "out": out, "reward_scale": scale, "cooldown": 0,
        "guidance": 1.5, "balance": "normalised", "eval_count": 64, "reference_steps": 1, "sample_every": steps,
        "resume": (out / "config.yaml").is_file(),
    }  # fmt: skip
    return make_config(common | METHODS[method])


def scores_a_sample(method: str, config: TrainConfig) -> int:
    """How often the black box is asked for each sample of the generator."""
    return {"surrogate": 1, "smoothing": 2 * config.black_box_pairs + 1}.get(method, 0)


def run(method: str, seed: int, steps: int, scale: float, work: Path) -> dict[str, Any]:
    """Train one, or take what an earlier call has trained, and measure its pictures by the true reward."""
    out = work / f"{method.replace(' ', '-')}-{seed}"
    config = settings(method, seed, steps, scale, out)
    if not (out / "summary.json").is_file():
        train(config)
    rows = whole_rows(out / "metrics.jsonl")
    comparison = Comparison.load(out / "samples" / "comparison")
    scores = measure(comparison, {"jpeg": load_reward("jpeg")}, ("emoji-judge", load_reward("emoji-judge")))
    return {
        "jpeg": {name: scores["rewards"]["jpeg"][name] for name in ("before", "after")},
        "judge": {name: scores["judge"][name] for name in ("before", "after")},
        "gain": scores["gain"]["jpeg"],
        "diversity": scores["diversity"]["after"] / scores["diversity"]["before"],
        "rank_correlation": rows[-1].get("rank_correlation/reward/jpeg"),
        "scores_a_sample": scores_a_sample(method, config),
    }


def table(results: dict[str, list[dict[str, Any]]], seeds: int, steps: int, scale: float) -> str:
    """The results as Markdown."""
    best = statistics.mean(result["gain"]["mean"] for result in results["differentiable stand-in"])
    lines = [
        "| gradient by | JPEG bits a pixel, before | after, each seed | saved, of the stand-in's saving "
        "| judge, before | judge, after | diversity | scores a sample | rank correlation at the end |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method, runs in results.items():
        before = statistics.mean(-run["jpeg"]["before"]["mean"] for run in runs)
        after = ", ".join(f"{-run['jpeg']['after']['mean']:.2f}" for run in runs)
        shares = [run["gain"]["mean"] / best for run in runs]
        judges = [statistics.mean(run["judge"][name]["mean"] for run in runs) for name in ("before", "after")]
        diversity = statistics.mean(run["diversity"] for run in runs)
        correlations = [run["rank_correlation"] for run in runs if run["rank_correlation"] is not None]
        saved = f"{statistics.mean(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
        lines.append(
            f"| {method} | {before:.2f} | {after} | {saved} | {judges[0]:.2f} | {judges[1]:.2f} | {diversity:.2f} | "
            f"{runs[0]['scores_a_sample']} | "
            f"{f'{statistics.mean(correlations):.2f}' if correlations else ''} |"
        )
    note = (
        f"{seeds} seeds, {steps} steps of 32 samples, `reward_scale={scale:g}`, `balance=normalised`; 64 held-out "
        f"prompts, two noises each. torch {torch.__version__}, CPU."
    )
    return "\n".join(lines) + f"\n\n{note}\n"


def main() -> None:
    """Train and measure what has not been, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--scale", type=float, default=1.0, help="reward_scale")
    parser.add_argument("--work", type=Path, default=Path("runs/black-box"))
    words = parser.parse_args()
    results = {
        method: [run(method, seed, words.steps, words.scale, words.work) for seed in range(words.seeds)]
        for method in METHODS
    }
    text = table(results, words.seeds, words.steps, words.scale)
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (HERE / "results.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
