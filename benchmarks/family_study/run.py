"""Every objective of the family on the emoji world, under equal updates and under equal time, 3 seeds.

    python benchmarks/family_study/run.py --work runs/family-study
    torchrun --nproc_per_node 2 benchmarks/family_study/run.py --work runs/family-study

Trains 45 runs (about two hours on two cores), generates every entry's images of the held-out prompts, and has
them judged by what no run was trained on: the judge's preference and the Frechet distance to real emoji. Run it again
after an interruption: finished runs and images are kept. Writes `results.jsonl`, the plan of equal time, `results.md`
and two figures beside this file; `docs/results/family-study.md` says what is to be seen.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# One core a process: the runs are small, and the time of an update must not depend on who else is at work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.family_study.cells import PLAN, Run, equal_time, equal_updates, plan_equal_time, train_share
from benchmarks.family_study.objectives import UPDATES
from benchmarks.family_study.page import write_results
from dipp_toolkit.distributed import Processes
from dipp_toolkit.experiments.bench.entries import BenchEntry, parse_entries
from dipp_toolkit.experiments.bench.rows import Row, read_rows, write_rows
from dipp_toolkit.experiments.bench.run import run_bench
from dipp_toolkit.experiments.bench.settings import METRICS, BenchSettings
from dipp_toolkit.utils.atomic import write_text

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"


def entries(runs: list[Run]) -> list[BenchEntry]:
    """What is compared: the trained generators, the one they started from, and the reference at its best guidance.

    Of five guidances the judge likes 1.5 best; see `reference_guidance` in `benchmarks/emoji_quality/results.json`.
    """
    named: dict[Path, str] = {}
    for run in runs:  # what was run once for both budgets is judged once
        named.setdefault(run.folder, f"{run.budget} {run.objective} seed {run.seed}={run.folder / 'final'}")
    options = {"emoji-reference": {"steps": 50, "guidance": 1.5}}
    return parse_entries(",".join(["emoji-reference", "emoji-onestep", *named.values()]), options)


def bench(work: Path, runs: list[Run], noises: int) -> list[Row]:
    """Images and figures of all entries."""
    settings = BenchSettings(
        entries=tuple(entries(runs)),
        prompts="emoji-heldout",
        rewards=("emoji-preference", "emoji-clip"),
        judges=("emoji-judge",),
        metrics=(*METRICS, "emoji-frechet"),
        seeds=tuple(range(1, noises + 1)),
        out=work / "bench",
        device="cpu",
        pictures=2,
        command="python benchmarks/family_study/run.py",
    )
    return run_bench(settings)


def recorded(row: Row) -> Row:
    """A row without its pictures, and without the name of the kernel it ran on."""
    environment = {name: value for name, value in row.environment.items() if name != "platform"}
    return row.model_copy(update={"pictures": (), "environment": environment})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/family-study"), help="folder for runs and images")
    parser.add_argument("--seeds", type=int, default=3, help="runs of every objective")
    parser.add_argument("--updates", type=int, default=UPDATES, help="generator updates of a run")
    parser.add_argument("--train-only", action="store_true", help="train what is missing and stop")
    parser.add_argument("--equal-updates-only", action="store_true", help="leave out the runs under equal time")
    parser.add_argument("--tables-only", action="store_true", help="tables and figures from recorded rows, and stop")
    arguments = parser.parse_args()
    if arguments.tables_only:
        write_results(read_rows(RESULTS), HERE)
        return
    torch.set_num_threads(1)
    processes = Processes.launched(torch.device("cpu"))
    runs = equal_updates(arguments.work, arguments.seeds, arguments.updates)
    for _ in train_share(runs, processes):
        pass
    processes.wait()
    if not arguments.equal_updates_only:
        if processes.main:
            plan_equal_time(arguments.work, arguments.updates)
        processes.wait()
        timed = equal_time(arguments.work, runs)
        for _ in train_share(timed, processes):
            pass
        processes.wait()
        runs = runs + timed
    if not arguments.train_only and processes.main:
        rows = [recorded(row) for row in bench(arguments.work, runs, 2)]
        write_rows(RESULTS, rows)
        plan = arguments.work / PLAN
        if plan.is_file():
            write_text(HERE / PLAN, plan.read_text(encoding="utf-8"))
        write_results(rows, HERE)


if __name__ == "__main__":
    main()
