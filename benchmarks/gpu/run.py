"""What training steps of published sizes reach on a GPU: eager, compiled and with CUDA graphs, within some minutes.

    python benchmarks/gpu/run.py --minutes 8
    python benchmarks/gpu/run.py --minutes 4 --cases sdxl:lora:2,pixart-alpha:full:16 --how "eager;compiled"
    python benchmarks/gpu/run.py --dry --minutes 1

Networks are those of `benchmarks/full_size_step`, with random weights made on the device, and its rows on an H100 are
the 'before'. Each variant has a process of its own with a time limit: steps are profiled as `dipp profile` does, then
one more runs with `torch.cuda.set_sync_debug_mode("error")`, which finds what makes the host wait. Rows are written
after each to `--results` (`results.json` here unless given, and the page beside it as `.md`), so that a run that is cut
off loses nothing; a later run replaces the rows that it measures. What matters most comes first.

Where Flux fails, the rest of the time goes to runs of it that change one thing each (launches that block, attention
kernels, determinism, the allocator), which tell causes of an illegal memory access apart.

Without a GPU it says so and ends with 2; `--dry` goes through all of it with tiny networks on the CPU, whose numbers
mean nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from benchmarks.full_size_step.case import Case, loop_of, use_plugins_of_the_checkout
from benchmarks.gpu.cases import FLUX, Variant, allow_attention, bisection, measured, settings_here, variants
from benchmarks.gpu.page import read_rows, with_row, write_rows

HERE = Path(__file__).parent
REWARD = "def blue(images, prompts):\n    return images[:, 2].mean((1, 2))\n"
SCRATCH = ("prompts", "prompt_cache")
"""Settings that are paths of a folder that is gone when the row is read."""
LEAST = 20.0
"""Seconds that must be left for another variant to begin."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="that all of it may take")
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each variant")
    parser.add_argument("--cases", default="", help="pipeline:mode:batch[:thrifty], separated by commas; all otherwise")
    parser.add_argument("--how", default="", help="eager;compiled;graphs, and other ways; all otherwise")
    parser.add_argument("--results", type=Path, default=None, help="results.json here, or dry.json of a dry run")
    parser.add_argument("--work", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--dry", action="store_true", help="tiny networks on the CPU")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    words = parser.parse_args(arguments)
    use_plugins_of_the_checkout()
    if words.one:
        return measure_here(json.loads(words.one), words)
    if not words.dry and not torch.cuda.is_available():
        print(
            "This machine has no GPU that torch can use, so nothing was measured. Run it where there is one; --dry "
            "goes through it on the CPU with tiny networks.",
            file=sys.stderr,
        )
        return 2
    target = words.results or (Path(tempfile.mkdtemp()) / "dry.json" if words.dry else HERE / "results.json")
    asked = [
        variant
        for variant in variants()
        if (not words.cases or variant.case in words.cases.split(","))
        and (not words.how or variant.how in words.how.split(";"))
    ]
    with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
        measure_all(asked, words, target, Path(scratch))
    print(f"{target}\n{target.with_suffix('.md')}")
    return 0


def measure_all(asked: Sequence[Variant], words: argparse.Namespace, target: Path, work: Path) -> None:
    """Measure variants until the minutes are over, and write each row at once."""
    end = time.perf_counter() + 60 * words.minutes
    rows, waiting = read_rows(target), list(asked)
    while waiting:
        variant, left = waiting.pop(0), end - time.perf_counter()
        if left < LEAST:
            print(f"{variant.name}: left out, {left:.0f} s are left", flush=True)
            continue
        row = measured(variant, words.steps, min(variant.limit, left), work, words.dry)
        rows = with_row(rows, row)
        write_rows(target, rows)
        outcome = row.get("failed") or f"{row['seconds']:.3g} s a step"
        print(f"{variant.name}: {outcome}; {end - time.perf_counter():.0f} s are left", flush=True)
        if variant.case == FLUX and variant.how == "eager" and "failed" in row:
            waiting += bisection()


def measure_here(words: dict[str, Any], options: argparse.Namespace) -> int:
    """Measure one variant in this process and write its row, then once more with whether a step waits for the GPU."""
    from dipp_toolkit.experiments.profile.run import Profiling
    from dipp_toolkit.training.stepping import StopRequest
    from dipp_toolkit.utils.deterministic import deterministic_kernels
    from dipp_toolkit.utils.host_waits import waits_are_errors

    if words["attention"]:
        allow_attention(words["attention"])
    device = torch.device("cpu" if options.dry else "cuda")
    case = Case.parse(words["case"], settings_here(words["settings"]))
    deterministic = bool(case.settings.get("deterministic", True))
    with (
        tempfile.TemporaryDirectory(dir=options.work) as scratch,
        deterministic_kernels(device, deterministic),  # before anything has chosen its kernels
    ):
        work, started = Path(scratch), time.perf_counter()
        loop = tiny_loop(case, work) if options.dry else loop_of(case, device, work)
        built = time.perf_counter() - started
        profiling = Profiling(loop, options.steps, None, StopRequest(), lambda what, step, of: None, work)
        row = {**profiling.run().as_dict(), "built": built, "torch": torch.__version__}
        row["settings"] = {name: value for name, value in row["settings"].items() if name not in SCRATCH}
        options.results.write_text(json.dumps(row), encoding="utf-8")
        try:
            with waits_are_errors(device):
                loop.one_step()
            row["without_waits"] = True
        except RuntimeError as error:
            row |= {"without_waits": False, "waits_with": str(error).splitlines()[0]}
    options.results.write_text(json.dumps(row), encoding="utf-8")
    return 0


def tiny_loop(case: Case, work: Path) -> Any:
    """The case with a tiny pipeline of the same family and a reward of one line, on the CPU."""
    from dipp_toolkit.config import TrainConfig
    from dipp_toolkit.experiments.profile.run import profiled_loop
    from dipp_toolkit.models.blueprints import find_pipeline
    from dipp_toolkit.training.setup.resolve import resolve

    folder = work / "twin"
    find_pipeline(case.pipeline).family.write_twin(folder)
    (work / "blue.py").write_text(REWARD, encoding="utf-8")
    (work / "prompts.txt").write_text("a cat\na dog\n", encoding="utf-8")
    settings = {**case.settings, "precision": "fp32", "frozen_precision": "fp32", "lora_rank": 2}
    config = TrainConfig(
        generator=str(folder), reference=str(folder), rewards={f"{work / 'blue.py'}:blue": 1.0}, device="cpu",
        prompts=str(work / "prompts.txt"), prompt_cache=work / "cache", **settings,
    )  # fmt: skip
    return profiled_loop(resolve(config), work)


if __name__ == "__main__":
    sys.exit(main())
