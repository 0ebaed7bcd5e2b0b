"""How many kernels a training step starts, counted at the published networks' full size on a device without memory.

    python benchmarks/step_cost/run.py [--cases pixart-alpha:full,pixart-alpha:lora] [--against 8535fb5]

A step is an assistant update and a generator update: the generator's samples, the assistant's passes, the reference
with both guidance branches as one batch, the decoder once for two rewards (image towers of HPSv2's and of the aesthetic
predictor's sizes), the optimisers and the average of the weights. Its calls are counted by a dispatch mode over tensors
that have shapes and no numbers, so that nothing is computed; autocast keeps the dtypes that it keeps on a GPU. Views
and reservations are left out; a multi-tensor call counts as many launches as CUDA's loop over its tensors makes. With
`--against` the same is counted with another commit's modules, in a process of its own. Eager passes alone are counted.
Writes results.json and results.md.
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
KINDS = ("products", "copies", "optimiser", "others")


def measured(case: str, work: Path) -> dict[str, Any]:
    """Launches of a case by part and kind, and the commonest calls."""
    from benchmarks.step_cost.step import count

    pipeline, mode = case.split(":")
    parts = count(pipeline, mode, work)
    names = sum((part.names for part in parts.values()), start=type(parts["generator"].names)())
    return {
        "launches": sum(part.launches for part in parts.values()),
        "parts": {name: {"launches": part.launches, **part.kinds} for name, part in parts.items()},
        "kinds": {kind: sum(part.kinds[kind] for part in parts.values()) for kind in KINDS},
        "names": dict(names.most_common(12)),
    }


def in_process_of_its_own(case: str, root: Path) -> dict[str, Any]:
    """The same with the modules below `root`."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "one.json"
        paths = os.pathsep.join(str(root / name) for name in ("", "plugins", "cli"))
        subprocess.run(
            [sys.executable, root / "benchmarks/step_cost/run.py", "--one", case, "--target", target],
            check=False, env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "DIPP_CACHE": scratch},
        )  # fmt: skip
        result: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
        return result


def checkout_of(commit: str, folder: Path) -> Path:
    """The modules of a commit, with this benchmark."""
    folder.mkdir()
    archive = subprocess.run(["git", "-C", ROOT, "archive", commit], check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x", "-C", folder], check=True, input=archive)
    shutil.rmtree(folder / "benchmarks/step_cost", ignore_errors=True)
    shutil.copytree(HERE, folder / "benchmarks/step_cost")
    return folder


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    before, after = results["before"], results["after"]
    lines = [
        "# Launches of a training step",
        "",
        "Kernels that an assistant update and a generator update start, eager, at full size: bf16, frozen weights in "
        f"bf16, two rewards. Before: commit {results['against']}."
        if before
        else "Eager, at full size.",
        "",
        "| | before | after | products | casts and copies | optimisers | others | adapters / whole before | after |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case, result in after.items():
        old = before.get(case, {}).get("launches")
        kinds = " | ".join(f"{result['kinds'][kind]:,}" for kind in KINDS)
        ratios = " | ".join(ratio(case, side) for side in (before, after))
        lines.append(f"| {case} | {f'{old:,}' if old else ''} | {result['launches']:,} | {kinds} | {ratios} |")
    return "\n".join(lines) + "\n"


def ratio(case: str, results: dict[str, Any]) -> str:
    """Launches by adapters over those of all weights."""
    pipeline, mode = case.split(":")
    whole = results.get(f"{pipeline}:full")
    if mode != "lora" or whole is None or case not in results:
        return ""
    return f"{results[case]['launches'] / whole['launches']:.2f}"


def main() -> None:
    """Count, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=CASES, help="pipeline:mode, separated by commas")
    parser.add_argument("--against", default=None, metavar="COMMIT", help="count this commit's step as well")
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, default=None, help=argparse.SUPPRESS)
    words = parser.parse_args()
    use_plugins_of_the_checkout()
    if words.one:
        gc.disable()  # networks without memory cannot be taken apart outside their mode: they last as long as we do
        result = measured(words.one, words.target.parent / "work")
        words.target.write_text(json.dumps(result), encoding="utf-8")
        sys.stdout.flush()
        os._exit(0)  # an interpreter that ends would take them apart
    results: dict[str, Any] = {"against": words.against, "before": {}, "after": {}}
    with tempfile.TemporaryDirectory() as scratch:
        roots = {"after": ROOT}
        if words.against:
            roots = {"before": checkout_of(words.against, Path(scratch) / "before"), **roots}
        for case in words.cases.split(","):
            for side, root in roots.items():
                results[side][case] = in_process_of_its_own(case, root)
                print(f"{case}, {side}: {results[side][case]['launches']:,} launches", flush=True)
            write_results(HERE, results, page(results))
    print_results(HERE)


if __name__ == "__main__":
    main()
