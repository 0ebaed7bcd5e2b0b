"""DI++ steps at full size: published architectures with random weights and HPSv2's ViT-H/14, on a CPU or a GPU.

    python benchmarks/full_size_step/run.py
    python benchmarks/full_size_step/run.py --device cuda --results benchmarks/full_size_step/h100.json
    python benchmarks/full_size_step/run.py --device cuda --cases sdxl:lora:4,pixart-alpha:full:8:thrifty --steps 20

A case is `pipeline:mode:batch[:thrifty]`; a thrifty one recomputes graphs rather than keep them. Each is built from its
published configuration with random weights and trained by the toolkit's own engine: seconds, memory and operations of
each part of a step. On a CPU every case has a process of its own, whose resident memory is watched. Nothing is
downloaded, and the package need not be installed: PYTHONPATH=.:plugins:cli will do.

Results go to `--results` and, as Markdown, beside it, after each case. `--plan-only` measures nothing and puts beside
recorded results what `dipp plan` says of the same steps.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from benchmarks.full_size_step.case import Case, forget, measure_or_say, use_plugins_of_the_checkout
from benchmarks.full_size_step.page import page, predicted, read_results, with_result, write_results

HERE = Path(__file__).parent
CPU_CASES = "pixart-alpha:lora:1:thrifty,sd15:lora:1:thrifty"
GPU_CASES = (
    "pixart-alpha:lora:4,pixart-alpha:full:4,sd15:lora:4,sdxl:lora:2,flux:lora:1:thrifty,"
    "pixart-alpha:lora:1,pixart-alpha:lora:8,pixart-alpha:full:8,pixart-alpha:lora:16:thrifty,"
    "sd15:lora:8,sd15:full:8,sdxl:lora:1,sdxl:lora:8:thrifty"
)
"""What matters most comes first, should the time run out. All fit 80 GB."""


def setting(text: str) -> tuple[str, Any]:
    """`"compile=true"` as a name and a value."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def measure_in_process_of_its_own(case: Case, words: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The case's result, from a fresh interpreter."""
    target = work / "one.json"
    command = [sys.executable, __file__, "--one", str(case), "--device", words.device, "--steps", str(words.steps)]
    more = [part for name, value in case.more.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    subprocess.run([*command, *more, "--work", str(work), "--results", str(target)], check=True)
    result: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    return result


def measure_all(words: argparse.Namespace, work: Path) -> None:
    """Measure every case and write what came out, after each."""
    device, started = torch.device(words.device), time.perf_counter()
    results = read_results(words.results)
    more = dict(map(setting, words.set))
    default = GPU_CASES if device.type == "cuda" else CPU_CASES
    for text in (words.cases or default).split(","):
        case, spent = Case.parse(text, more), time.perf_counter() - started
        if words.seconds and spent > words.seconds:
            print(f"{case}: left out, {spent:.0f} s are spent", flush=True)
            continue
        if device.type == "cuda":
            result = measure_or_say(case, device, words.steps, work)
            forget()
        else:
            result = measure_in_process_of_its_own(case, words, work)
        results = with_result(results, result)
        write_results(words.results, results)
        each = [round(second, 4) for second in result.get("seconds", [])]
        print(f"{case}: {result.get('failed', each)}; {time.perf_counter() - started:.0f} s so far", flush=True)
    print(page(results))


def main() -> None:
    """Measure, or hold what was measured to the plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=None, help="pipeline:mode:batch[:thrifty], separated by commas")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=None, help="timed steps of each case")
    parser.add_argument("--seconds", type=float, default=None, help="no further case begins after these")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a further setting of all")
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--plan-only", action="store_true", help="measure nothing; hold the recorded runs to the plan")
    parser.add_argument("--work", type=Path, default=None, help="folder for what is made on the way; none is kept")
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    words = parser.parse_args()
    words.steps = words.steps or (10 if words.device.startswith("cuda") else 3)
    use_plugins_of_the_checkout()
    if words.one:
        case = Case.parse(words.one, dict(map(setting, words.set)))
        result = measure_or_say(case, torch.device(words.device), words.steps, words.work)
        words.results.write_text(json.dumps(result), encoding="utf-8")
        return
    if words.plan_only:
        results = read_results(words.results)
        held = [result if "failed" in result else result | {"predicted": predicted(result)} for result in results]
        write_results(words.results, held)
        print(page(held))
        return
    with tempfile.TemporaryDirectory() as scratch:
        work = words.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        measure_all(words, work)


if __name__ == "__main__":
    main()
