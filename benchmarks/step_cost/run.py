"""How many kernels a training step starts, counted at the published networks' full size on a device without memory.

    python benchmarks/step_cost/run.py [--cases pixart-alpha:full,pixart-alpha:lora] [--against 8535fb5]
        [--counts launches,waits,compiled]

A step is an assistant update and a generator update: the generator's samples, the assistant's passes, the reference
with both guidance branches as one batch, the decoder once for two rewards (image towers of HPSv2's and of the aesthetic
predictor's sizes), the optimisers and the average of the weights. Its calls are counted by a dispatch mode over tensors
that have shapes and no numbers, so that nothing is computed; autocast keeps the dtypes that it keeps on a GPU. Views
and reservations are left out; a multi-tensor call counts as many launches as CUDA's loop over its tensors makes.

Host waits are counted in a tiny twin's step, and compiled launches, of PixArt alone, in a network with the published
layers and few channels, by inductor's code for a CPU (`waits.py`, `compiled.py`). With `--against` launches and waits
are counted with another commit's modules too; what results.json has of that commit is not counted again. Each count has
a process of its own; a Flux case takes 5 GB, PixArt's compiled ones some ten minutes each. Writes results.json and
results.md, whose other cases stay as they are.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks._shared.measuring import print_results, write_results
from benchmarks.full_size_step.case import use_plugins_of_the_checkout

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CASES = (
    "pixart-alpha:full,pixart-alpha:lora,sd15:full,sd15:lora,sdxl:full,sdxl:lora,sd3:full,sd3:lora,flux:full,flux:lora"
)
COMPILED = "pixart-alpha"
KINDS = ("products", "copies", "optimiser", "others")


def count_launches(case: str, work: Path) -> dict[str, Any]:
    """Launches of a case by part and kind, and the commonest calls."""
    from benchmarks.step_cost.step import count

    pipeline, mode = case.split(":")
    parts = count(pipeline, mode, work)
    names = sum((part.names for part in parts.values()), start=type(parts["generator"].names)())
    return {
        "launches": sum(part.launches for part in parts.values()),
        "parts": {
            name: {"launches": part.launches, **{kind: part.kinds[kind] for kind in KINDS}}
            for name, part in parts.items()
        },
        "kinds": {kind: sum(part.kinds[kind] for part in parts.values()) for kind in KINDS},
        "names": dict(names.most_common(12)),
    }


def count_waits(case: str, work: Path) -> dict[str, Any]:
    """Waits of a case's tiny twin, by place."""
    from benchmarks.step_cost.waits import count_waits

    return count_waits(*case.split(":"), work)


def count_compiled(case: str, work: Path) -> dict[str, Any]:
    """Launches of a narrow network's step, eager and compiled."""
    from benchmarks.step_cost.compiled import count_compiled

    return count_compiled(*case.split(":"), work)


COUNTS = {"launches": count_launches, "waits": count_waits, "compiled": count_compiled}


def in_process_of_its_own(case: str, root: Path, what: str) -> dict[str, Any]:
    """One of `COUNTS` with the modules below `root`."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "one.json"
        paths = os.pathsep.join(str(root / name) for name in ("", "plugins", "cli"))
        subprocess.run(
            [sys.executable, root / "benchmarks/step_cost/run.py", "--one", case, "--counts", what, "--target", target],
            check=False, env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "DIPP_CACHE": scratch},
        )  # fmt: skip
        result: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
        return result


def checkout_of(commit: str, folder: Path) -> Path:
    """The modules of a commit, with this benchmark and the counter of waits."""
    folder.mkdir()
    archive = subprocess.run(["git", "-C", ROOT, "archive", commit], check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x", "-C", folder], check=True, input=archive)
    shutil.rmtree(folder / "benchmarks/step_cost", ignore_errors=True)
    shutil.copytree(HERE, folder / "benchmarks/step_cost")
    for name in ("host_waits.py", "stand_in_device.py"):
        shutil.copy(ROOT / "dipp_toolkit/utils" / name, folder / "dipp_toolkit/utils" / name)
    return folder


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    before, after = results["before"], results["after"]
    lines = [
        "# Launches of a training step",
        "",
        "Kernels that an assistant update and a generator update start, eager, at full size: bf16, frozen weights in "
        "bf16, two rewards. Waits of the host for the device are those of a step of a tiny twin. An empty cell was not "
        "counted." + (f" Before: commit {results['against']}." if before else ""),
        "",
        "| | before | after | products | casts and copies | optimisers | others | adapters / whole before | after | "
        "host waits before | after |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in dict.fromkeys((*before, *after)):
        kinds = after.get(case, {}).get("kinds", {})
        cells = [number(side.get(case, {}).get("launches")) for side in (before, after)]
        cells += [number(kinds.get(kind)) for kind in KINDS]
        cells += [ratio(case, side) for side in (before, after)]
        cells += [number(side.get(case, {}).get("waits")) for side in (before, after)]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join([*lines, *compiled_table(results["compiled"])]) + "\n"


def compiled_table(results: dict[str, Any]) -> list[str]:
    """Lines on compiled steps; none where none was counted."""
    if not results:
        return []
    lines = [
        "",
        "## Compiled",
        "",
        "`compile=on`, in a network with the published layers and few channels, for launches do not depend on width: "
        "kernels that inductor writes for a CPU, each once for every time that it runs, and the calls of libraries "
        "among them. Triton's kernels for a GPU may be cut otherwise. Generator, assistant, reference, decoder and "
        "rewards are compiled by their blocks; what lies between blocks stays eager, as do optimisers, of which each "
        "multi-tensor call counts once. Both columns are of this network and this count.",
        "",
        "| | eager | compiled | of it in compiled code | compiled / eager | compilations until step 3 | after it |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, result in results.items():
        eager = sum(part["eager"] for part in result["eager"].values())
        inside = sum(part["compiled"] for part in result["compiled"].values())
        total = inside + sum(part["eager"] for part in result["compiled"].values())
        lines.append(
            f"| {case} | {eager:,} | {total:,} | {inside:,} | {total / eager:.2f} | {result['graphs']} | "
            f"{result['compiled_later']} |"
        )
    return lines


def number(value: int | None) -> str:
    """A count in a table; nothing where there is none."""
    return "" if value is None else f"{value:,}"


def ratio(case: str, results: dict[str, Any]) -> str:
    """Launches by adapters over those of all weights."""
    pipeline, mode = case.split(":")
    whole = results.get(f"{pipeline}:full", {})
    own = results.get(case, {}).get("launches")
    if mode != "lora" or own is None or "launches" not in whole:
        return ""
    return f"{own / whole['launches']:.2f}"


def results_so_far(against: str | None) -> dict[str, Any]:
    """What was written before, where it is held against the same commit."""
    path = HERE / "results.json"
    empty: dict[str, Any] = {"against": against, "before": {}, "after": {}, "compiled": {}}
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else empty
    return {**empty, **known} if known["against"] == against else empty


def main() -> None:
    """Count, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=CASES, help="pipeline:mode, separated by commas")
    parser.add_argument("--against", default=None, metavar="COMMIT", help="count this commit's step as well")
    parser.add_argument("--counts", default=",".join(COUNTS), help="what to count, separated by commas")
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, default=None, help=argparse.SUPPRESS)
    words = parser.parse_args()
    use_plugins_of_the_checkout()
    if words.one:
        gc.disable()  # networks without memory cannot be taken apart outside their mode: they last as long as we do
        result = COUNTS[words.counts](words.one, words.target.parent / "work")
        words.target.write_text(json.dumps(result), encoding="utf-8")
        sys.stdout.flush()
        os._exit(0)  # an interpreter that ends would take them apart
    results = results_so_far(words.against)
    with tempfile.TemporaryDirectory() as scratch:
        roots = {"after": ROOT}
        if words.against:
            roots = {"before": checkout_of(words.against, Path(scratch) / "before"), **roots}
        for case, what in product(words.cases.split(","), words.counts.split(",")):
            if what == "compiled":
                if case.split(":")[0] == COMPILED:
                    results["compiled"][case] = in_process_of_its_own(case, ROOT, what)
            else:
                for side, root in roots.items():
                    if side == "before" and what in results[side].get(case, {}):
                        continue
                    results[side].setdefault(case, {}).update(in_process_of_its_own(case, root, what))
            print(f"{case}: {what} counted", flush=True)
            write_results(HERE, results, page(results))
    print_results(HERE)


if __name__ == "__main__":
    main()
