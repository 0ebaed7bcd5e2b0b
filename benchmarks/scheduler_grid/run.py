"""A reference's samples beside the stock pipeline's, for every pipeline class and every scheduler class of diffusers.

    python benchmarks/scheduler_grid/run.py [--pipeline FluxPipeline]

Tiny twins in float32, four steps with guidance. A cell is equal, or refused by name; what is neither is a fault, and
the command fails. The whole grid writes results.md and results.json.
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


def outcomes(pipeline: str) -> list[Outcome]:
    """Every cell of a pipeline class."""
    with tempfile.TemporaryDirectory() as scratch:
        twin = Twin(pipeline, Path(scratch) / "twin")
        return [twin.outcome(cell) for cell in cells(pipeline)]


def table(results: Sequence[Outcome]) -> str:
    """A row for each pipeline class and scheduler class with a cell that is equal; the refused classes below."""
    rows = [
        "| pipeline | scheduler | cells | equal | refused | largest difference | noise levels |",
        "|---|---|---|---|---|---|---|",
    ]
    refused: dict[str, list[str]] = {}
    for pipeline, scheduler in dict.fromkeys((one.cell.pipeline, one.cell.scheduler) for one in results):
        own = [one for one in results if (one.cell.pipeline, one.cell.scheduler) == (pipeline, scheduler)]
        equal = [one for one in own if one.kind == "equal"]
        if all(one.kind == "refused" for one in own):
            refused.setdefault(pipeline, []).append(scheduler)
            continue
        levels = [one.levels for one in equal if one.levels is not None]
        rows.append(
            f"| {pipeline} | {scheduler} | {len(own)} | {len(equal)} | {sum(one.kind == 'refused' for one in own)} | "
            f"{max((one.difference for one in equal), default=0):.1g} | {f'{max(levels):.1g}' if levels else '-'} |"
        )
    faults = sum(one.kind == "differs" for one in results)
    counts = {kind: sum(one.kind == kind for one in results) for kind in ("equal", "refused")}
    lines = [
        f"{len(results)} cells: {counts['equal']} equal, {counts['refused']} refused by name, {faults} at fault.",
        "",
        *rows,
        "",
        *(f"Refused with {pipeline} whatever its settings: {', '.join(names)}." for pipeline, names in refused.items()),
        "",
        f"diffusers {diffusers.__version__}, torch {torch.__version__}, float32.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the grid, print the table and what is at fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", choices=PIPELINES, action="append", help="this class alone; writes nothing")
    chosen = parser.parse_args().pipeline
    results = [one for pipeline in chosen or PIPELINES for one in outcomes(pipeline)]
    text = table(results)
    print(text)
    for one in results:
        if one.kind == "differs":
            print(f"{one.cell}: {one.reason} ({one.difference:.3g}, {one.levels})")
    if not chosen:
        here = Path(__file__).parent
        (here / "results.md").write_text(text, encoding="utf-8")
        refusals = [{"cell": str(one.cell), "reason": one.reason} for one in results if one.kind == "refused"]
        (here / "results.json").write_text(json.dumps(refusals, indent=1) + "\n", encoding="utf-8")
    return int(any(one.kind == "differs" for one in results))


if __name__ == "__main__":
    sys.exit(main())
