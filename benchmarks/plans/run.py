"""What of every published size trains on 24, 48 and 80 GB, and how long one waits for `dipp plan` to say so.

    python benchmarks/plans/run.py [--only WORD] [--memory 24GB 48GB 80GB] [--repeats 2]

Each row is `dipp plan --generator NAME --reward hps --memory M --json`, a process of its own, the names being those of
published generators, one for each network's configuration and number of images. Times are of the whole command, and of
the processor in it. Each plan is made `--repeats` times, all of them one after the other before any is made again, so
that no plan has all of its runs in one slow minute of the machine: its time is that of its fastest run, and the slowest
stands beside it. A plan asks for what it says on its line: the recommended settings, and what had to be changed to fit.
Writes results.json and results.md; with `--only` the other rows stay as they were recorded.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks._shared.measuring import choose, print_results, ran_on, write_results
from dipp_toolkit.models.published import PublishedGenerator
from dipp_toolkit.registry import get_registry

HERE = Path(__file__).parent
LIMIT = 15.0
"""Seconds that a plan may take."""
GIB = 2**30


def sizes() -> Iterator[PublishedGenerator]:
    """A published generator for each configuration of a network."""
    seen = set()
    for entry in get_registry().entries["generator"].values():
        model = entry.factory
        if not isinstance(model, PublishedGenerator):
            continue
        blueprint = model.blueprint()
        config = blueprint.folder / blueprint.family.network_name / "config.json"
        key = (config.read_text(encoding="utf-8"), model.reference, blueprint.shrink)
        if key not in seen:
            seen.add(key)
            yield model


def planned(name: str, memory: str) -> dict[str, Any]:
    """One command's plan and times."""
    words = [sys.executable, "-m", "dipp_cli", "plan", "--generator", name, "--reward", "hps", "--memory", memory]
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    finished = subprocess.run(
        [*words, "--json"], check=False, capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS="1")
    )
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - used.ru_utime + after.ru_stime - used.ru_stime
    row = {"memory": memory, "seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}
    if not finished.stdout.startswith("{"):  # a plan that does not fit is one, and exits with 1
        return row | {"error": finished.stderr.strip().splitlines()[-1]}
    plan = json.loads(finished.stdout)
    chosen = plan["recommended"]
    return row | {
        "billions": plan["parameters"].get("generator", plan["parameters"]["reference"]) / 1e9,
        "mode": plan["settings"].get("mode"),
        "batch": plan["settings"].get("batch_size"),
        "changes": plan["changes"] if chosen else None,
        "peak_gib": (chosen["peak"] if chosen else plan["least"]) / GIB,
        "fits": chosen is not None,
    }


def faster(before: dict[str, Any] | None, row: dict[str, Any]) -> dict[str, Any]:
    """The faster of two runs of one plan, with how many there were and the seconds of the slowest."""
    if before is None:
        return row | {"slowest_seconds": row["seconds"], "runs": 1}
    slowest = max(before["slowest_seconds"], row["seconds"])
    fastest = min(before, row, key=lambda plan: plan["seconds"])
    return fastest | {"slowest_seconds": slowest, "runs": before["runs"] + 1}


def cell(row: Mapping[str, Any]) -> str:
    """One plan in words."""
    if "error" in row:
        return f"fails: {row['error']}"
    if not row["fits"]:
        return f"does not fit: {row['peak_gib']:.0f} GiB at least"
    changes = ", ".join(f"{name}={str(value).lower()}" for name, value in row["changes"].items())
    return f"{row['peak_gib']:.1f} GiB{': ' + changes if changes else ''}"


def page(results: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    memories = results["memories"]
    lines = [
        f"Measured on {results['ran_on']}",
        "",
        "Peak of a step with the reward HPS and each name's recommended settings, and what had to be changed to fit. "
        "Counted from the configurations, not run. Seconds are of the plan that takes longest, in its fastest run.",
        "",
        f"| name | class | network | mode, batch | {' | '.join(memories)} | seconds (of the processor), slowest run |",
        f"|---|---|---|---|{'---|' * len(memories)}---|",
    ]
    slow = 0.0
    for name, row in results["rows"].items():
        plans = [row["plans"][memory] for memory in memories]
        slowest = max(plans, key=lambda plan: plan["seconds"])
        slow = max(slow, slowest["seconds"])
        first = next((plan for plan in plans if "error" not in plan), None)
        about = f"{first['billions']:.2f} B | {first['mode']}, {first['batch']}" if first else "- | -"
        times = f"{slowest['seconds']:.1f} ({slowest['cpu_seconds']:.1f}), {slowest['slowest_seconds']:.1f}"
        lines.append(f"| `{name}` | {row['class']} | {about} | {' | '.join(map(cell, plans))} | {times} |")
    took = [plan for row in results["rows"].values() for plan in row["plans"].values()]
    within = sum(plan["seconds"] <= LIMIT for plan in took)
    runs = min(plan["runs"] for plan in took)
    always = sum(plan["slowest_seconds"] <= LIMIT for plan in took)
    lines += [
        "",
        f"{len(results['rows'])} names, {len(took)} plans, each made {runs} times: {within} within {LIMIT:g} seconds, "
        f"the slowest {slow:.1f}; {always} in each of their runs, the slowest of which took "
        f"{max(plan['slowest_seconds'] for plan in took):.1f}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Plan, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names that have this word in them")
    parser.add_argument("--memory", nargs="+", default=["24GB", "48GB", "80GB"])
    parser.add_argument("--repeats", type=int, default=2, help="runs of each plan")
    words = parser.parse_args()
    path = HERE / "results.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if words.only and path.is_file() else {}
    models = [model for model in sizes() if words.only in model.name]
    for model in models:
        index = json.loads((model.configs / "model_index.json").read_text(encoding="utf-8"))
        rows[model.name] = {"class": index["_class_name"], "plans": {}}
    for _ in range(words.repeats):
        for model in models:
            plans = rows[model.name]["plans"]
            for memory in words.memory:
                plans[memory] = faster(plans.get(memory), planned(model.name, memory))
            results = {
                "ran_on": ran_on(choose("cpu", 1)),
                "memories": words.memory,
                "rows": dict(sorted((name, row) for name, row in rows.items() if row["plans"])),
            }
            write_results(HERE, results, page(results))
    print_results(HERE)


if __name__ == "__main__":
    main()
