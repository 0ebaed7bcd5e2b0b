"""A reference's samples beside the stock pipeline's, for every pipeline class and every scheduler class of diffusers.

    python benchmarks/scheduler_grid/run.py [--pipeline FluxPipeline]

Tiny twins in float32, four steps with guidance. A cell is equal, or refused by name; what is neither is a fault, and
the command fails. The whole grid writes results.md, classes.md with a row for each scheduler class, and results.json
with the sentence of every refusal.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import diffusers
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.scheduler_grid.cells import PIPELINES, cells
from benchmarks.scheduler_grid.compare import Outcome, Twin

RULE = "|---|---|---|---|---|---|---|"


def outcomes(pipeline: str) -> list[Outcome]:
    """Every cell of a pipeline class."""
    with tempfile.TemporaryDirectory() as scratch:
        twin = Twin(pipeline, Path(scratch) / "twin")
        return [twin.outcome(cell) for cell in cells(pipeline)]


def summary(results: Sequence[Outcome]) -> str:
    """The counts, and a row for each pipeline class."""
    rows = ["| pipeline | scheduler classes | cells | equal | refused | largest difference | noise levels |", RULE]
    for pipeline in dict.fromkeys(outcome.cell.pipeline for outcome in results):
        own = [outcome for outcome in results if outcome.cell.pipeline == pipeline]
        usable = {outcome.cell.scheduler for outcome in own if outcome.kind == "equal"}
        classes = f"{len(usable)} of {len({outcome.cell.scheduler for outcome in own})}"
        rows.append(f"| `{pipeline}` | {classes} | {_figures(own)} |")
    counts = {kind: sum(outcome.kind == kind for outcome in results) for kind in ("equal", "refused", "differs")}
    lines = [
        f"{len(results)} cells: {counts['equal']} equal, {counts['refused']} refused by name, {counts['differs']} at "
        "fault.",
        "",
        *rows,
        "",
        f"diffusers {diffusers.__version__}, torch {torch.__version__}, float32.",
    ]
    return "\n".join(lines) + "\n"


def table(results: Sequence[Outcome]) -> str:
    """A row for each pipeline class and scheduler class with a cell that is equal; the refused classes below."""
    rows = ["| pipeline | scheduler | cells | equal | refused | largest difference | noise levels |", RULE]
    refused: dict[str, list[str]] = {}
    for pipeline, scheduler in dict.fromkeys((outcome.cell.pipeline, outcome.cell.scheduler) for outcome in results):
        own = [
            outcome for outcome in results if (outcome.cell.pipeline, outcome.cell.scheduler) == (pipeline, scheduler)
        ]
        if all(outcome.kind == "refused" for outcome in own):
            refused.setdefault(pipeline, []).append(scheduler)
        else:
            rows.append(f"| {pipeline} | {scheduler} | {_figures(own)} |")
    names = (f"Refused with {pipeline}, whatever is set: {', '.join(kinds)}." for pipeline, kinds in refused.items())
    return "\n".join([*rows, "", *(line for name in names for line in (name, ""))])


def _figures(results: Sequence[Outcome]) -> str:
    """Cells, how many are equal and how many refused, and the largest differences of those that are equal."""
    equal = [outcome for outcome in results if outcome.kind == "equal"]
    levels = max((outcome.levels for outcome in equal if outcome.levels is not None), default=None)
    refused = sum(outcome.kind == "refused" for outcome in results)
    difference = f"{max(outcome.difference for outcome in equal):.1g}" if equal else "-"
    return f"{len(results)} | {len(equal)} | {refused} | {difference} | {'-' if levels is None else f'{levels:.1g}'}"


def main() -> int:
    """Run the grid, print the table and what is at fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", choices=PIPELINES, action="append", help="this class alone; writes nothing")
    chosen = parser.parse_args().pipeline
    diffusers.utils.logging.set_verbosity_error()  # how schedulers mend their settings
    results = [outcome for pipeline in chosen or PIPELINES for outcome in outcomes(pipeline)]
    print(f"{table(results)}\n{summary(results)}")
    for outcome in results:
        if outcome.kind == "differs":
            print(f"{outcome.cell}: {outcome.reason} ({outcome.difference:.3g}, {outcome.levels})")
    if not chosen:
        here = Path(__file__).parent
        (here / "results.md").write_text(summary(results), encoding="utf-8")
        (here / "classes.md").write_text(table(results).rstrip() + "\n", encoding="utf-8")
        refusals = [
            {"cell": str(outcome.cell), "reason": outcome.reason} for outcome in results if outcome.kind == "refused"
        ]
        (here / "results.json").write_text(json.dumps(refusals, indent=1) + "\n", encoding="utf-8")
    return int(any(outcome.kind == "differs" for outcome in results))


if __name__ == "__main__":
    sys.exit(main())
