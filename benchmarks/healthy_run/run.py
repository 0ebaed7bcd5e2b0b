"""What the curves of a healthy run look like, and those of one that is out of control, on the emoji world.

    OMP_NUM_THREADS=1 python benchmarks/healthy_run/run.py --work runs/healthy

Trains with `dipp train`'s own settings, three seeds, and once, for fewer updates, with a scale and a learning rate that
are far too large. Of every number the page has the lowest and highest of the runs' means over the first five updates,
over the middle of the run and over the last five; the judge's means are those of the monitors. Finished runs are not
run again. Four runs of some minutes each, on one thread. Writes results.json and results.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks._shared.measuring import ran_on
from dipp_toolkit import train
from dipp_toolkit.config import make_config
from dipp_toolkit.utils.jsonl import whole_rows

HERE = Path(__file__).parent
EDGE = 5
"""Updates that the first and the last column are means of."""
COLUMNS = {
    "reward/emoji-preference": "the trained reward",
    "deviation/reward/emoji-preference": "its deviation in a batch",
    "kl/integral_kl": "divergence, nats a dimension",
    "score_gap/integral_kl": "distance of the two scores",
    "pull": "rewards over divergence",
    "cosine/integral_kl/reward/emoji-preference": "cosine of reward and divergence",
    "grad_norm/integral_kl": "size of the divergence's gradient",
    "assistant_loss": "the assistant's loss",
}
"""Numbers of `metrics.jsonl`, with what they are."""
WILD = {"reward_scale": 100_000.0, "learning_rate": 0.02}
SHORT = 20
"""Updates of the run that is out of control, at most; it is so from the first ones on."""
FEW = 8
"""Held-out prompts that it is judged on."""
Band = tuple[float, float]


def trained(out: Path, **settings: Any) -> Path:
    """A run of the emoji world, or what an earlier call has trained."""
    if not (out / "summary.json").is_file():
        begun = {"out": out, "resume": (out / "config.yaml").is_file()}
        train(make_config({"generator": "emoji-onestep", "device": "cpu", **begun, **settings}))
    return out


def parts(run: Path, column: str) -> list[float]:
    """The means of a number at the start, in the middle and at the end of a run."""
    values = [row[column] for row in whole_rows(run / "metrics.jsonl") if column in row]
    edge = min(EDGE, max(1, len(values) // 3))
    return [statistics.fmean(part) for part in (values[:edge], values[edge:-edge] or values, values[-edge:])]


def bands(runs: list[Path], column: str) -> list[Band]:
    """The lowest and highest over runs, of each part."""
    return [(min(values), max(values)) for values in zip(*(parts(run, column) for run in runs), strict=True)]


def measured(runs: list[Path]) -> dict[str, Any]:
    """What is recorded of runs with equal settings."""
    summaries = [json.loads((run / "summary.json").read_text(encoding="utf-8")) for run in runs]
    looks = [whole_rows(run / "monitors.jsonl") for run in runs]
    judges = [tuple(rows[place]["rewards"]["emoji-judge"]["mean"] for place in (0, -1)) for rows in looks]
    return {
        "metrics": {column: bands(runs, column) for column in COLUMNS},
        "judge": {"before": [before for before, _ in judges], "after": [after for _, after in judges]},
        "warned": sorted({name for summary in summaries for name in summary["warned"]}),
    }


def cell(band: Band) -> str:
    """A band as the page has it."""
    low, high = (f"{value:.2g}" if abs(value) < 0.1 else f"{value:.3g}" for value in band)
    return low if low == high else f"{low} to {high}"


def page(results: dict[str, Any], note: str) -> str:
    """The results as Markdown."""
    healthy, wild = results["healthy"], results["wild"]
    lines = [
        f"| in `metrics.jsonl` | what it is | first {EDGE} updates | between | last {EDGE} "
        f"| out of control: first {EDGE} | last {EDGE} |",
        "|---|---|---|---|---|---|---|",
    ]
    for column, words in COLUMNS.items():
        ours, theirs = healthy["metrics"][column], wild["metrics"][column]
        cells = [*map(cell, ours), cell(theirs[0]), cell(theirs[-1])]
        lines.append(f"| `{column}` | {words} | {' | '.join(cells)} |")
    for side, title in ((healthy, "As recommended"), (wild, "Out of control")):
        before, after = (cell((min(side["judge"][when]), max(side["judge"][when]))) for when in ("before", "after"))
        warned = ", ".join(f"`{name}`" for name in side["warned"]) or "none"
        lines += [
            "",
            f"{title}: the judge's mean, which nothing was trained on, is {before} at the start and {after} at the "
            f"end; warnings: {warned}.",
        ]
    return "\n".join(lines) + f"\n\n{note}\n"


def main() -> None:
    """Train what has not been, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/healthy"), help="where the runs are")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="the recommended run's own 40, unless this is tried out")
    words = parser.parse_args()
    runs = [trained(words.work / f"seed-{seed}", seed=seed, steps=words.steps) for seed in range(words.seeds)]
    few = min(SHORT, words.steps)
    wild = trained(words.work / "wild", seed=0, steps=few, eval_count=FEW, **WILD)
    results = {"healthy": measured(runs), "wild": measured([wild])}
    on = ran_on(torch.device("cpu"))
    given = ", ".join(f"`{name}={value:g}`" for name, value in WILD.items())
    note = (
        f"{words.steps} updates of 32 samples; {words.seeds} seeds as recommended, and {few} updates of seed 0 with "
        f"{given}, judged on {FEW} prompts. {on}"
    )
    text = page(results, note)
    (HERE / "results.json").write_text(json.dumps(results | {"ran_on": on}, indent=1) + "\n", encoding="utf-8")
    (HERE / "results.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
