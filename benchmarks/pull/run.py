"""A pull in place of a scale, on the emoji world.

    OMP_NUM_THREADS=1 python benchmarks/pull/run.py --work runs/pull

Three questions. Does a scale that is measured for a pull end where a scale chosen by hand ends that has the same pull
over its first updates? Does a reward in other units, times 1e-4 and 1e4, give the same pull and the same weights? Units
that are powers of two change no digit; others round otherwise, which a training lets grow as it does a change of a
reward's last bit: so weights are compared early and late, and a run whose reward differs in its last bit stands beside.
At which pull do pictures turn blue under README's `blue.py`, and is it said when they cannot? Finished runs are not run
again. Writes results.json and results.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks._shared.measuring import ran_on
from dipp_cli.terminal.progress import listener
from dipp_toolkit import train
from dipp_toolkit.config import make_config
from dipp_toolkit.evaluation.comparison import Comparison
from dipp_toolkit.monitoring.first_pull import first_rows, held_weights
from dipp_toolkit.training.run_state.checkpoint import load_checkpoint, newest_whole_checkpoint
from dipp_toolkit.utils.jsonl import whole_rows

HERE = Path(__file__).parent
UNITS = {
    "as it is": "plain", "times 1e-4": "small", "times 1e4": "large", "times 2^-13": "halved", "times 2^13": "doubled",
    "its last bit changed": "nudged",
}  # fmt: skip
FEW = 4
"""Updates after which weights are compared first: rounding has not grown by then."""
PULLS = (0.2, 0.7, 2.0)
WEAK = 0.3
"""The `reward_scale` at which README's reward does nothing."""


def trained(out: Path, lines_shown: list[str] | None = None, **settings: Any) -> Path:
    """Train a generator of the emoji world, or take what an earlier call has trained.

    Args:
        out: the run folder.
        lines_shown: takes the lines that a quiet terminal would show.
        settings: over the recommended ones.
    """
    quick = {
        "generator": "emoji-onestep", "out": out, "device": "cpu", "reference_steps": 1, "sample_every": 10**6,
        "monitor_every": 0, "diagnose_every": 0, "cooldown": 0, "resume": (out / "config.yaml").is_file(),
    }  # fmt: skip
    if not (out / "summary.json").is_file():
        lines = io.StringIO()
        with contextlib.redirect_stderr(lines), listener(quiet=True) as shown:
            train(make_config(quick | settings), listeners=[shown])
        if lines_shown is not None:
            lines_shown += lines.getvalue().splitlines()
    return out


def first_pull(out: Path) -> float:
    """The median pull over a run's first updates."""
    return statistics.median(row["pull"] for row in first_rows(whole_rows(out / "metrics.jsonl")))


def ends(out: Path) -> dict[str, Any]:
    """What a run ended with: rewards and judge with intervals, and its pull at the start."""
    summary = json.loads((out / "summary.json").read_text())
    judge = summary["judge"]
    scores = {name: reward["after"] for name, reward in summary["rewards"].items()} | {judge["name"]: judge["after"]}
    starts = {name: reward["before"]["mean"] for name, reward in summary["rewards"].items()}
    starts[judge["name"]] = judge["before"]["mean"]
    return {"pull": first_pull(out), "after": scores, "before": starts, "said": summary["pull"]}


def by_hand_and_measured(seed: int, words: argparse.Namespace) -> dict[str, Any]:
    """The recommended run, and one whose scale is measured for the pull that this has."""
    common = {"steps": words.steps, "batch_size": words.batch, "seed": seed, "eval_count": words.prompts}
    hand = trained(words.work / f"hand-{seed}", **common)
    measured = trained(words.work / f"auto-{seed}", pull=first_pull(hand), **common)
    return {"by hand": ends(hand), "measured": ends(measured)}


def largest_difference(weights: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Between two sets of weights."""
    return max(float((weights[key] - weight).abs().max()) for key, weight in other.items())


def relative_difference(weights: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Norm of the difference of two sets of weights over that of the second."""
    squares = [
        ((weights[key] - weight).double().square().sum(), weight.double().square().sum())
        for key, weight in other.items()
    ]
    return float((sum(a for a, _ in squares) / sum(b for _, b in squares)) ** 0.5)


def in_units(words: argparse.Namespace) -> dict[str, Any]:
    """One run in three units: the largest differences of pull and weights to the plain one."""
    runs = {
        name: trained(
            words.work / f"unit-{function}", rewards={f"{HERE / 'rewards.py'}:{function}": 1.0}, pull=0.7,
            steps=words.steps // 3, batch_size=words.batch, eval_count=2, precision="fp32", judge=None,
            checkpoint_every=FEW, keep_checkpoints=100,
        )
        for name, function in UNITS.items()
    }  # fmt: skip
    few = {name: load_checkpoint(out / "checkpoints" / f"step-{FEW:08d}")["generator"] for name, out in runs.items()}
    states = {name: newest_whole_checkpoint(out / "checkpoints")[0]["generator"] for name, out in runs.items()}
    rows = {name: whole_rows(out / "metrics.jsonl") for name, out in runs.items()}
    first = next(iter(UNITS))
    return {
        name: {
            "pull": first_pull(runs[name]),
            "pull_differs": max(
                abs(a["pull"] / b["pull"] - 1) for a, b in zip(rows[name][:FEW], rows[first][:FEW], strict=True)
            ),
            "few_differ": relative_difference(few[name], few[first]),
            "few_largest": largest_difference(few[name], few[first]),
            "weights_differ": relative_difference(states[name], states[first]),
            "held": next(iter(held_weights(rows[name]).values())),
        }
        for name in UNITS
    }


def blue_share(images: torch.Tensor) -> float:
    """Share of pictures whose mean blue is above their mean red and green."""
    means = images.flatten(0, 1).mean((2, 3))
    return float((means[:, 2] > means[:, :2].amax(1)).float().mean())


def blue(words: argparse.Namespace) -> dict[str, Any]:
    """README's reward at a few pulls, and at a scale by which it does nothing."""
    reward = {f"{HERE / 'rewards.py'}:blueness": 1.0}
    common = {"rewards": reward, "batch_size": words.batch, "eval_count": words.prompts}
    results: dict[str, Any] = {}
    for pull in PULLS:
        out = trained(words.work / f"blue-{pull:g}", pull=pull, steps=words.steps, **common)
        images = Comparison.load(out / "samples" / "comparison").images
        scores = next(iter(json.loads((out / "summary.json").read_text())["rewards"].values()))
        results[f"pull {pull:g}"] = {
            "share": {name: blue_share(images[name]) for name in ("before", "after")},
            "score": {name: scores[name]["mean"] for name in ("before", "after")},
            "held": next(iter(held_weights(whole_rows(out / "metrics.jsonl")).values())),
        }
    out, note, lines_shown = words.work / "blue-weak", words.work / "blue-weak.txt", []
    trained(out, lines_shown, reward_scale=WEAK, steps=2, **(common | {"eval_count": 2}))
    if lines_shown:
        note.write_text("\n".join(lines_shown), encoding="utf-8")
    lines = note.read_text(encoding="utf-8").splitlines()
    results["warning"] = next((line for line in lines if line.startswith("Warning: The rewards pull")), "")
    return results


def page(results: dict[str, Any], note: str) -> str:
    """The results as Markdown."""
    lines = [
        "| seed | scale | pull, first updates | "
        + " | ".join(next(iter(results["seeds"].values()))["by hand"]["after"])
    ]
    lines[0] += " | inside the other's interval |"
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    for seed, runs in results["seeds"].items():
        for name, result in runs.items():
            other = runs["measured" if name == "by hand" else "by hand"]["after"]
            cells = [
                f"{score['mean']:.3g} [{score['low']:.3g}, {score['high']:.3g}]" for score in result["after"].values()
            ]
            inside = sum(
                other[key]["low"] <= score["mean"] <= other[key]["high"] for key, score in result["after"].items()
            )
            lines.append(f"| {seed} | {name} | {result['pull']:.3g} | {' | '.join(cells)} | {inside} of {len(cells)} |")
    lines += [
        "",
        f"| the reward | {FEW} updates: a pull differs by | weights | largest weight | all: weights | held as |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for name, result in results["units"].items():
        lines.append(
            f"| {name} | {result['pull_differs']:.1e} | {result['few_differ']:.1e} | {result['few_largest']:.1e} | "
            f"{result['weights_differ']:.1e} | "
            f"`--reward-scale {result['held']:.4g}` |"
        )
    lines += ["", "| `blue.py` at | blue pictures, before | after | blueness, before | after | held as |"]
    lines.append("|---|---|---|---|---|---|")
    for name, result in results["blue"].items():
        if name != "warning":
            lines.append(
                f"| {name} | {result['share']['before']:.0%} | {result['share']['after']:.0%} | "
                f"{result['score']['before']:.3f} | {result['score']['after']:.3f} | "
                f"`--reward-scale {result['held']:.4g}` |"
            )
    warning = results["blue"]["warning"] or "nothing was said"
    lines += ["", "Weights differ by the norm of the difference over that of the weights."]
    return "\n".join(lines) + f"\n\nAt `--reward-scale {WEAK:g}`: {warning}\n\n{note}\n"


def main() -> None:
    """Train and measure what has not been, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=64, help="held-out prompts, two noises each")
    parser.add_argument("--work", type=Path, default=Path("runs/pull"))
    words = parser.parse_args()
    on = ran_on(torch.device("cpu"))
    print(on, flush=True)
    results: dict[str, Any] = {"blue": blue(words), "units": in_units(words)}
    results["seeds"] = {str(seed): by_hand_and_measured(seed, words) for seed in range(words.seeds)}
    note = (
        f"{words.steps} updates of {words.batch} samples, a third as many where the units vary; {words.prompts} "
        f"held-out prompts, two noises each. {on}"
    )
    text = page(results, note)
    (HERE / "results.json").write_text(json.dumps(results | {"ran_on": on}, indent=1) + "\n", encoding="utf-8")
    (HERE / "results.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
